"""Energy: what is read from NVML and from a DCGM exporter, how it is added up, and what the report says. Numbers by hand."""

import asyncio
import gzip
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest

from qaeval.cli import run
from qaeval.cli.doctor import energy_of
from qaeval.comparison.markdown import render_markdown
from qaeval.cost.energy import run_wh, stage_energies
from qaeval.errors import DataError
from qaeval.files.yaml import validated
from qaeval.records import Energy, GpuEnergy, Session
from qaeval.registry.config import Serving
from qaeval.registry.model import ModelSpec
from qaeval.report.facts import MachineFacts
from qaeval.serving import client
from qaeval.serving.client import Server
from qaeval.serving.conductor import Conductor
from qaeval.serving.energy import NOT_ALONE, NOT_IDLE, EnergyWatch, MeterReading, measure
from qaeval.serving.gpus import Dcgm, GpuReading, NotMeteredError, Nvml, gpu_meter, load_nvml, read_exporter
from qaeval.storage.run_directory import RunStore
from replay.server import LoopbackServer
from report_builders import JUDGE, Case, case

approx = pytest.approx

FIRST, SECOND = "GPU-c2f76b33-7953-256e-8f33-1343419b1a1c", "GPU-5b4e07f6-3a86-4340-039d-25f2a83cdc43"

# ------------------------------------------------------------------------------------------------ adding up


def looks(
    *values: float | None, every_s: float = 1.0, quantity: str = "joules", gpu: str = FIRST
) -> list[MeterReading]:
    """One look each second; None: the GPU does not answer."""
    empty = {"joules": None, "watts": None}
    return [
        MeterReading(
            number * every_s,
            {} if value is None else {gpu: GpuReading("NVIDIA L4", **{**empty, quantity: value})},
        )
        for number, value in enumerate(values)
    ]


def test_a_counter_is_the_difference_of_its_ends() -> None:
    measured_energy = measure(looks(4742.776, 4760.0, 4802.776))
    assert (
        measured_energy.method,
        measured_energy.joules,
        measured_energy.seconds,
        measured_energy.notes,
    ) == ("energy counter", approx(60), 2.0, ())


def test_power_is_integrated_by_trapezoids() -> None:
    # 10, 30, 30, 20 W: 20 + 30 + 25 J
    measured_energy = measure(looks(10, 30, 30, 20, quantity="watts"))
    assert (measured_energy.method, measured_energy.joules) == ("integrated power", approx(75))


def test_several_gpus_are_added_up_and_kept_apart() -> None:
    readings = [
        MeterReading(first.at_s, {**first.gpus, **second.gpus})
        for first, second in zip(looks(0, 50), looks(100, 130, gpu=SECOND), strict=True)
    ]
    assert [(first.gpu, first.joules) for first in measure(readings).gpus] == [(FIRST, 50), (SECOND, 30)]


def test_one_gpu_without_a_counter_makes_it_integrated_power_for_all() -> None:
    readings = [
        MeterReading(at_s, {FIRST: GpuReading("", joules, 20.0), SECOND: GpuReading("", None, 40.0)})
        for at_s, joules in ((0.0, 0.0), (1.0, 25.0))
    ]
    assert (measure(readings).method, measure(readings).joules) == ("integrated power", approx(60))


def test_a_counter_that_starts_anew_counts_on_and_is_told() -> None:
    # 100 to 150, then from 0: 20, 50
    measured_energy = measure(looks(100, 150, 20, 50))
    assert measured_energy.joules == approx(100)
    assert f"{FIRST} was reset" in measured_energy.notes[0]


def test_a_gap_in_the_power_is_bridged_and_told() -> None:
    gap = [look for look in looks(10, 10, *[None] * 9, 30, quantity="watts") if look.gpus]
    measured_energy = measure(gap)
    assert measured_energy.joules == approx(10 + 10 * 20)
    assert "1 gap, 10 s" in measured_energy.notes[0]


def test_a_gap_does_not_matter_to_a_counter() -> None:
    assert measure(looks(0, 10, *[None] * 9, 110)).notes == ()


def test_readings_that_end_before_the_stage_are_no_measurement() -> None:
    with pytest.raises(NotMeteredError, match="10 s"):
        measure(looks(*range(6), *[None] * 5))


def test_no_reading_and_one_reading_are_no_measurement() -> None:
    for few in ([], looks(5)):
        with pytest.raises(NotMeteredError):
            measure(few)


def test_a_counter_that_is_renewed_too_seldom_for_the_stage_says_so() -> None:
    # every 30 s over 80 s: 2 moves
    with pytest.raises(NotMeteredError, match="in 80 s"):
        measure(looks(*[number // 30 * 600.0 for number in range(81)]))


def test_over_a_long_stage_it_is_taken_and_its_grain_is_told() -> None:
    measured_energy = measure(looks(*[number // 30 * 600.0 for number in range(601)]))
    assert (measured_energy.joules, measured_energy.seconds) == (approx(12_000), approx(600))
    assert "every 30 s" in measured_energy.notes[0]


def test_a_last_reading_right_after_another_is_no_sign_of_a_slow_counter() -> None:
    readings = [*looks(0, 20, 40), MeterReading(2.01, {FIRST: GpuReading("", 40.0, None)})]
    assert (measure(readings).joules, measure(readings).notes) == (approx(40), ())


# ------------------------------------------------------------------------------------------------ NVML


@dataclass
class Card:
    """What the driver says of one GPU; None: it does not support the question."""

    uuid: str = FIRST
    millijoules: int | None = 0
    joules_per_reading: float = 0.0
    """The counter grows by this with each reading."""
    n_readings: int = 0
    milliwatts: int | None = 16_365
    mig: int | None = None
    n_processes: int = 1


@dataclass
class Driver:
    """``libnvidia-ml``, as pynvml calls it: C functions that fill what they are given and return an error code."""

    cards: list[Card]
    is_there: bool = True
    n_open: int = 0
    handles: list[tuple[Any, Card]] = field(default_factory=list)

    def nvmlInitWithFlags(self, _flags: int) -> int:  # noqa: N802 - NVML's names
        self.n_open += self.is_there
        return 0 if self.is_there else 9

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.n_open -= 1
        return 0

    def nvmlDeviceGetCount_v2(self, out: Any) -> int:  # noqa: N802
        return self.say(out, len(self.cards))

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, out: Any) -> int:  # noqa: N802
        self.handles.append((out._obj, self.cards[index.value]))
        return 0

    def nvmlDeviceGetUUID(self, handle: Any, out: Any, _size: Any) -> int:  # noqa: N802
        out.value = self.card(handle).uuid.encode()
        return 0

    def nvmlDeviceGetName(self, _handle: Any, out: Any, _size: Any) -> int:  # noqa: N802
        out.value = b"NVIDIA L4"
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, out: Any) -> int:  # noqa: N802
        card = self.card(handle)
        if card.millijoules is None:
            return self.say(out, None)
        card.n_readings += 1
        return self.say(out, card.millijoules + int(1000 * card.joules_per_reading * card.n_readings))

    def nvmlDeviceGetPowerUsage(self, handle: Any, out: Any) -> int:  # noqa: N802
        return self.say(out, self.card(handle).milliwatts)

    def nvmlDeviceGetMigMode(self, handle: Any, current: Any, _pending: Any) -> int:  # noqa: N802
        return self.say(current, self.card(handle).mig)

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Any, count: Any, measured_energy: Any) -> int:  # noqa: N802
        n = self.card(handle).n_processes
        count._obj.value = n
        return 7 if n and measured_energy is None else 0

    def card(self, handle: Any) -> Card:
        return next(card for device, card in self.handles if device is handle)

    @staticmethod
    def say(out: Any, value: int | None) -> int:
        if value is None:
            return 3  # NVML_ERROR_NOT_SUPPORTED
        out._obj.value = value
        return 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    pynvml = pytest.importorskip("pynvml")
    fake = Driver([Card()])
    monkeypatch.setattr(pynvml, "nvmlLib", fake)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return fake


async def read(*names: str) -> Mapping[str, GpuReading]:
    async with Nvml(load_nvml(), names) as meter:
        return await meter.read()


async def test_nvml_counts_in_millijoules_and_milliwatts(driver: Driver) -> None:
    driver.cards[0].millijoules = 2**33 + 776  # more than 32 bits
    assert await read() == {FIRST: GpuReading("NVIDIA L4", (2**33 + 776) / 1000, 16.365)}
    assert driver.n_open == 0


async def test_a_gpu_without_the_counter_is_read_by_its_power(driver: Driver) -> None:
    driver.cards[0].millijoules = None
    assert (await read())[FIRST] == GpuReading("NVIDIA L4", None, 16.365)


async def test_a_gpu_that_tells_neither_is_told(driver: Driver) -> None:
    driver.cards[0] = Card(millijoules=None, milliwatts=None)
    with pytest.raises(NotMeteredError, match=FIRST):
        await read()


async def test_a_partitioned_gpu_is_not_measured(driver: Driver) -> None:
    driver.cards[0].mig = 1
    with pytest.raises(NotMeteredError, match="partitioned"):
        await read()
    driver.cards[0].mig = 0
    assert await read()
    with pytest.raises(NotMeteredError, match="MIG-1f027ee8"):
        await read("MIG-1f027ee8")


async def test_of_several_gpus_the_named_ones_are_read(driver: Driver) -> None:
    driver.cards.append(Card(SECOND))
    assert list(await read("1")) == [SECOND]
    assert list(await read("GPU-c2f7", "1")) == [FIRST, SECOND]
    with pytest.raises(NotMeteredError, match="no GPU '2'"):
        await read("2")


async def test_where_nobody_names_them_it_is_the_one_on_which_a_process_computes(driver: Driver) -> None:
    driver.cards.append(Card(SECOND, n_processes=0))
    assert list(await read()) == [FIRST]
    driver.cards[1].n_processes = 1
    with pytest.raises(NotMeteredError, match=r" 2 GPUs .*`gpus:`"):
        await read()
    driver.cards[0].n_processes = driver.cards[1].n_processes = 0
    with pytest.raises(NotMeteredError, match=r"no process.*`gpus:`"):
        await read()


async def test_a_gpu_that_others_use_too_is_told(driver: Driver) -> None:
    driver.cards[0].n_processes = 2
    async with Nvml(load_nvml(), ()) as meter:
        await meter.read()
        (note,) = await meter.notes()
    assert note.startswith(f"2 processes compute on {FIRST}")


def spec(**fields: Any) -> ModelSpec:
    return ModelSpec(name="ours", **{"url": "http://127.0.0.1:8000/v1", **fields})


def test_without_a_driver_or_on_another_machine_nothing_is_read(driver: Driver) -> None:
    assert gpu_meter(spec(), addresses=["127.0.0.1"], exporter_addresses=()) is not None
    assert gpu_meter(spec(), addresses=["10.0.0.5"], exporter_addresses=()) is None
    assert gpu_meter(spec(), addresses=["10.0.0.5", "127.0.0.1"], exporter_addresses=()) is None
    assert (
        gpu_meter(
            spec(replicas=("http://127.0.0.1:8001/v1",)), addresses=["127.0.0.1"], exporter_addresses=()
        )
        is None
    )
    driver.is_there = False
    assert gpu_meter(spec(), addresses=["127.0.0.1"], exporter_addresses=()) is None


def test_the_gpus_that_a_server_takes_stand_in_its_arguments() -> None:
    assert spec().n_gpus == 1
    assert spec(vllm_args=["--tensor-parallel-size=2", "-pp", "3"]).n_gpus == 6


def test_a_server_of_our_own_is_on_the_first_gpus_that_it_may_see(tmp_path: Path) -> None:
    def gpus(n: int, serving: dict[str, str], inherited: dict[str, str]) -> tuple[str, ...]:
        return Conductor(Serving(env=serving), env=inherited, logs=tmp_path).gpus(n)

    visible = "CUDA_VISIBLE_DEVICES"
    assert gpus(2, {}, {}) == ("0", "1")
    assert gpus(1, {}, {visible: "3,1"}) == ("3",)
    assert gpus(2, {visible: "GPU-c2f7, 2,0"}, {visible: "3"}) == ("GPU-c2f7", "2")


def test_an_exporter_is_a_url_or_a_url_with_labels() -> None:
    url = "http://10.0.0.5:9400/metrics"
    assert spec(gpu_metrics=url).gpu_metrics == spec(gpu_metrics={"url": url}).gpu_metrics
    labelled = spec(gpu_metrics={"url": url, "labels": {"gpu": 0}}).gpu_metrics
    assert labelled is not None
    assert labelled.labels == {"gpu": "0"}
    with pytest.raises(DataError, match=r"'gpu_metrics.urls'.*'url'"):
        validated(ModelSpec, {"name": "ours", "gpu_metrics": {"urls": url}}, "qaeval.yaml")
    for wrong in ("10.0.0.5:9400", "http://me:secret@10.0.0.5/metrics", "http://10.0.0.5/metrics?a=1"):
        with pytest.raises(ValueError, match="gpu_metrics"):
            spec(gpu_metrics=wrong)


# ------------------------------------------------------------------------------------------------ a DCGM exporter

LABELS = (
    'gpu="{gpu}",UUID="{uuid}",pci_bus_id="00000000:31:00.0",device="nvidia{gpu}",modelName="NVIDIA L4",Hostname="node-1",'
    'DCGM_FI_DRIVER_VERSION="580.105.08"'
)


def exported(*gpus: tuple[str, float, float], added: str = "") -> str:
    """What an exporter answers: names, labels, types and help as dcgm-exporter 4 prints them for an L4 with its default counters
    (etc/default-counters.csv of its repository, and outputs that users show in their issues); the numbers are made up.
    """
    lines = []
    for name, kind, text, column in (
        ("DCGM_FI_DEV_SM_CLOCK", "gauge", "SM clock frequency (in MHz).", None),
        ("DCGM_FI_DEV_POWER_USAGE", "gauge", "Power draw (in W).", 2),
        (
            "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
            "counter",
            "Total energy consumption since boot (in mJ).",
            1,
        ),
    ):
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        for number, gpu in enumerate(gpus):
            labels = LABELS.format(gpu=number, uuid=gpu[0])
            lines.append(f"{name}{{{labels}{added}}} {210 if column is None else gpu[column]}")
    return "\n".join(lines) + "\n"


def test_an_exporter_counts_in_millijoules_and_watts() -> None:
    text = exported((FIRST, 4742776, 16.365), (SECOND, 5551899580, 35.686))
    assert read_exporter(text, {}) == {
        FIRST: GpuReading("NVIDIA L4", 4742.776, 16.365),
        SECOND: GpuReading("NVIDIA L4", 5551899.58, 35.686),
    }
    assert list(read_exporter(text, {"gpu": "1"})) == [SECOND]
    assert list(read_exporter(text, {"Hostname": "node-2"})) == []


def test_one_gpu_with_a_line_for_each_pod_counts_once() -> None:
    twice = exported((FIRST, 1000, 16)) + exported((FIRST, 1000, 16), added=',pod="vllm-1"')
    assert read_exporter(twice, {}) == {FIRST: GpuReading("NVIDIA L4", 1.0, 16.0)}


def test_what_dcgm_leaves_blank_is_not_a_number() -> None:
    # DCGM_INT64_BLANK and its kin; DCGM_FP64_BLANK
    text = exported((FIRST, 9223372036854775794, 16), (SECOND, 7, 140737488355328.0))
    assert read_exporter(text, {}) == {
        FIRST: GpuReading("NVIDIA L4", None, 16.0),
        SECOND: GpuReading("NVIDIA L4", 0.007, None),
    }


def test_a_number_below_0_is_none() -> None:
    text = exported((FIRST, -1, -16)) + exported((SECOND, 2000, 16))
    assert read_exporter(text, {}) == {SECOND: GpuReading("NVIDIA L4", 2.0, 16.0)}


def test_parts_of_a_gpu_have_no_counter_of_their_own() -> None:
    with pytest.raises(NotMeteredError, match="partitioned"):
        read_exporter(exported((FIRST, 257858316, 54), added=',GPU_I_PROFILE="2g.20gb",GPU_I_ID="3"'), {})


class ExporterServer:
    """A DCGM exporter over HTTP and a clock: one GPU, whose counter grows with `sleep` alone, or with each reading."""

    def __init__(self, watts: float = 60.0) -> None:
        self.watts, self.status, self.n_asked = watts, 200, 0
        self.now_s, self.joules, self.joules_per_reading = 0.0, 0.0, 0.0
        self.text: str | bytes | None = None
        self.headers: dict[str, str] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.n_asked += 1
                outer.joules += outer.joules_per_reading
                text = outer.text or exported((FIRST, 1000 * outer.joules, outer.watts))
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text if isinstance(text, bytes) else text.encode())

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A stage that ends hangs up in the middle of an answer."""

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/metrics"

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.joules += self.watts * seconds
        await asyncio.sleep(0)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def exporter() -> Iterator[ExporterServer]:
    with ExporterServer() as server:
        yield server


async def idle() -> bool:
    return True


def watch(exporter: ExporterServer, **settings: Any) -> EnergyWatch:
    meter = Dcgm(Server(exporter.url, None, 3.0, addresses=("127.0.0.1",)), settings.pop("labels", {}))
    options = {"idle_watts": None, "is_idle": idle, "sleep": exporter.sleep, "clock": exporter.clock}
    return EnergyWatch(meter, **{**options, **settings})


async def stage(exporter: ExporterServer, **options: Any) -> Energy:
    """Measure a stage of ten seconds."""
    watched = watch(exporter, **options)
    await watched.before()
    async with watched:
        await exporter.sleep(10)
    return watched.result()


async def test_a_stage_is_measured_and_idle_before_it(exporter: ExporterServer) -> None:
    watched = watch(exporter)
    exporter.watts = 16.0
    await watched.before()
    exporter.watts = 60.0
    before = exporter.n_asked
    async with watched:
        while exporter.n_asked < before + 5:  # noqa: ASYNC110 - counted in the thread of the server
            await asyncio.sleep(0)
    measured_energy = watched.result()
    assert (measured_energy.method, measured_energy.source, measured_energy.idle) == (
        "energy counter",
        "DCGM exporter",
        "measured",
    )
    assert measured_energy.idle_watts == approx(16)
    (gpu,) = measured_energy.gpus
    assert measured_energy.seconds >= 4
    assert gpu.joules == approx(60 * measured_energy.seconds)


async def test_the_doctor_reads_the_exporter_before_a_run_needs_it(exporter: ExporterServer) -> None:
    labelled = {"url": exporter.url, "labels": {"gpu": "7"}}
    text = await energy_of(spec(gpu_metrics={"url": exporter.url}), [])
    assert text.endswith(f"DCGM exporter: NVIDIA L4 {FIRST}")
    assert "energy cannot be measured" in await energy_of(spec(gpu_metrics=labelled), [])
    assert await energy_of(spec(), []) == ""


async def test_idle_watts_of_the_user_are_not_measured_again(exporter: ExporterServer) -> None:
    measured_energy = await stage(exporter, idle_watts=12.5)
    assert (measured_energy.idle_watts, measured_energy.idle) == (12.5, "registry")


async def busy() -> bool:
    return False


@pytest.mark.parametrize(("options", "why"), [({"is_idle": busy}, NOT_IDLE), ({"alone": False}, NOT_ALONE)])
async def test_where_something_runs_idle_is_not_measured_and_said(
    exporter: ExporterServer, options: dict[str, Any], why: str
) -> None:
    measured_energy = await stage(exporter, **options)
    assert (measured_energy.method, measured_energy.idle_watts, measured_energy.idle) == (
        "energy counter",
        None,
        "",
    )
    assert why in measured_energy.notes[-1]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_a_request_before_or_while_idle_is_measured_is_said(
    exporter: ExporterServer, when: str
) -> None:
    async def is_idle() -> bool:
        return (exporter.n_asked == 0) == (when == "meanwhile")

    measured_energy = await stage(exporter, is_idle=is_idle)
    assert (measured_energy.idle_watts, measured_energy.idle) == (None, "")
    assert NOT_IDLE in measured_energy.notes[-1]


async def test_an_exporter_of_several_gpus_needs_labels(exporter: ExporterServer) -> None:
    exporter.text = exported((FIRST, 1, 16), (SECOND, 1, 16))
    measured_energy = await stage(exporter, idle_watts=1.0)
    assert (measured_energy.method, "2 GPUs" in measured_energy.reason) == (None, True)
    assert "node-9" in (await stage(exporter, labels={"Hostname": "node-9"})).reason


async def test_an_exporter_that_is_not_there_costs_the_stage_nothing(exporter: ExporterServer) -> None:
    exporter.status = 503
    measured_energy = await stage(exporter)
    assert (measured_energy.method, "got HTTP 503" in measured_energy.reason) == (None, True)


async def test_an_exporter_that_sends_without_end_is_not_heard_to_its_end(
    exporter: ExporterServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_MAX_BYTES", 2**20)
    exporter.text = "# " + "x" * 2**21
    measured_energy = await stage(exporter, idle_watts=1.0)
    assert (measured_energy.method, "more than 1 MiB" in measured_energy.reason) == (None, True)


async def test_what_an_exporter_packs_without_being_asked_is_read(exporter: ExporterServer) -> None:
    exporter.headers, exporter.text = (
        {"Content-Encoding": "gzip"},
        gzip.compress(exported((FIRST, 1, 16)).encode()),
    )
    assert "got neither" not in (await stage(exporter, idle_watts=1.0)).reason


async def test_an_exporter_cannot_send_its_reader_elsewhere(exporter: ExporterServer) -> None:
    with ExporterServer() as elsewhere:
        exporter.status, exporter.headers = 302, {"Location": elsewhere.url}
        measured_energy = await stage(exporter, idle_watts=1.0)
        assert (measured_energy.method, "got HTTP 302" in measured_energy.reason, elsewhere.n_asked) == (
            None,
            True,
            0,
        )


async def test_an_exporter_that_goes_away_is_no_measurement(exporter: ExporterServer) -> None:
    watched = watch(exporter, idle_watts=1.0)
    async with watched:
        exporter.status = 503
        await exporter.sleep(10)
    assert "11 s" in watched.result().reason


# ------------------------------------------------------------------------------------------------ from sessions to a report


def used(joules: float, *, idle_watts: float | None = 16.0, gpu: str = FIRST, **fields: Any) -> Energy:
    return Energy(
        **{
            "method": "energy counter",
            "source": "NVML",
            "seconds": 60.0,
            "gpus": (GpuEnergy(gpu=gpu, name="NVIDIA L4", joules=joules),),
            "idle_watts": idle_watts,
            "idle": "" if idle_watts is None else "measured",
            **fields,
        }
    )


def session(model: str, minute: int, energy: Energy | None, **fields: Any) -> Session:
    return Session(
        **{
            "stage": "grade" if model == JUDGE.name else "generate",
            "model": model,
            "started": f"2026-01-05T10:{minute:02}:00+00:00",
            "seconds": 60.0,
            "n_tasks": 12,
            "qaeval_version": "0",
            "host": "node-1",
            "energy": energy,
            **fields,
        }
    )


def test_energy_of_a_stage_is_what_was_used_less_idle() -> None:
    # 3,600 J are 1 Wh; 16 W over 60 s are 960 J
    measured_energy = stage_energies([session("alpha", 0, used(3600))])["generate", "alpha"]
    assert (measured_energy.wh, measured_energy.idle_wh, measured_energy.work_wh) == (
        approx(1),
        approx(960 / 3600),
        approx(2640 / 3600),
    )


def test_stages_side_by_side_on_one_gpu_count_once() -> None:
    # the judge's 120 s hold the candidate's 60 s
    sessions = [
        session("alpha", 0, used(3600), alongside=True),
        session(JUDGE.name, 0, used(7200), alongside=True, seconds=120.0),
    ]
    assert run_wh(sessions) == approx(2)
    measured_energy = stage_energies(sessions)["generate", "alpha"]
    assert "grade judge-7b" in measured_energy.notes[-1]
    apart = [sessions[0], sessions[1].model_copy(update={"energy": used(7200, gpu=SECOND)})]
    assert run_wh(apart) == approx(3)
    assert stage_energies(apart)["generate", "alpha"].notes == ()


def test_of_stages_that_overlap_in_part_the_shorter_counts_outside_the_longer() -> None:
    # 10:00 to 10:02, and 10:01:30 to 10:02:30: half of the second is outside
    sessions = [
        session("alpha", 0, used(7200), seconds=120.0, alongside=True),
        session(JUDGE.name, 1, used(3600), alongside=True, started="2026-01-05T10:01:30+00:00"),
    ]
    assert run_wh(sessions) == approx(2.5)


def test_shards_of_one_stage_on_one_gpu_count_once() -> None:
    shards = [session("alpha", 0, used(3600)) for _ in range(4)]
    assert stage_energies(shards)["generate", "alpha"].wh == approx(1)


@pytest.mark.slow
def test_two_gpus_of_one_name_are_two() -> None:
    pair = (
        GpuEnergy(gpu=FIRST, name="NVIDIA L4", joules=1800),
        GpuEnergy(gpu=SECOND, name="NVIDIA L4", joules=1800),
    )
    report = measured(used(0, gpus=pair, idle_watts=32.0), None, None).report()
    energy = report.timing.costs[0].stage.energy
    assert energy is not None
    assert (energy.wh, energy.idle_wh) == (approx(1), approx(32 / 60))
    assert "2 × NVIDIA L4" in render_markdown(report)


def test_a_stage_that_was_measured_in_part_is_not_measured() -> None:
    sessions = [session("alpha", 0, used(3600)), session("alpha", 5, None)]
    measured_energy = stage_energies(sessions)["generate", "alpha"]
    assert measured_energy.method is None
    assert "1 of 2" in measured_energy.reason
    assert run_wh(sessions) is None


def test_a_session_of_before_has_no_energy_and_still_reads() -> None:
    old = session("alpha", 0, None).model_dump(mode="json")
    assert "energy" not in old
    assert Session.model_validate(old).energy is None
    new = session("alpha", 0, used(3600))
    assert Session.model_validate_json(new.model_dump_json()) == new


OURS = MachineFacts(name="ours", gpu_watts=72.0, grid_g_per_kwh=380.0, grid_source="made up, 2025")


def measured(*energies: Energy | None) -> Case:
    """Alpha is usable in 12 of 24, beta always; alpha, beta and the judge work a minute each."""
    example = case({"alpha": ["AB"] * 12, "beta": ["AA"] * 12}, items_per_sample=2)
    sessions = tuple(
        session(name, minute, energy)
        for minute, (name, energy) in enumerate(zip(("alpha", "beta", JUDGE.name), energies, strict=True))
    )
    return example.with_rows(sessions=sessions)


def test_energy_and_co2_of_1000_usable_items_are_worked_by_hand() -> None:
    # 2,640 J of work, 12 usable items: 1,000 take 61.1 Wh, at 380 g/kWh 23.2 g
    report = measured(used(3600), used(3600, idle_watts=None), used(3600)).report(
        machines=dict.fromkeys(("alpha", "beta", JUDGE.name), OURS)
    )
    alpha, beta = report.timing.costs
    assert alpha.wh_per_1000_usable is not None
    assert alpha.wh_per_1000_usable.value == approx(1000 * 2640 / 3600 / 12)
    assert alpha.co2_g_per_1000_usable is not None
    assert alpha.co2_g_per_1000_usable.value == approx(0.38 * 1000 * 2640 / 3600 / 12)
    assert beta.wh_per_1000_usable is not None
    assert beta.wh_per_1000_usable.value == approx(1000 / 24)  # idle is not known and stays in
    assert report.timing.energy_wh == approx(3)


def test_the_report_names_how_energy_is_known() -> None:
    power = used(3600, method="integrated power", notes=("1 gap",))
    unknown = Energy(method=None, source="NVML", reason="processes compute on 2 GPUs")
    text = render_markdown(
        measured(used(3600), power, unknown).report(
            machines=dict.fromkeys(("alpha", "beta", JUDGE.name), OURS)
        )
    )
    assert "energy counter (NVML)" in text
    assert "integrated power (NVML)" in text
    assert "power limit (ours)" in text
    assert f"grade judge-7b: not measured, {unknown.reason}" in text
    assert "generate beta: 1 gap." in text
    assert "at most 1.20 Wh" in text  # 72 W for the minute of the judge
    assert "0.27 Wh (measured)" in text
    assert "source: made up, 2025" in text


def test_without_a_measurement_the_report_calls_it_an_upper_bound() -> None:
    report = measured(None, None, None).report(machines=dict.fromkeys(("alpha", "beta", JUDGE.name), OURS))
    text = render_markdown(report)
    assert "Energy at most" in text
    assert "qaeval-harness[energy]" in text
    assert "Energy of the GPUs" not in text
    assert "energy_wh" not in report.timing.model_dump()


@pytest.mark.slow
def test_a_measured_stage_beside_a_bound_says_which_is_which() -> None:
    text = render_markdown(
        measured(used(3600), None, None).report(machines=dict.fromkeys(("alpha", "beta", JUDGE.name), OURS))
    )
    assert "Energy, 1,000 usable" in text
    assert "at most 50.00 Wh" in text  # beta: 72 W x 60 s = 1.2 Wh for 24 usable items


def test_more_than_the_power_limit_allows_is_a_mistake_somewhere() -> None:
    # 72 W for 60 s are 4,320 J
    report = measured(used(5000), used(4320), None).report(machines={"alpha": OURS, "beta": OURS})
    alpha, beta = (costs.stage.energy for costs in report.timing.costs)
    assert alpha is not None
    assert "72 W" in alpha.notes[-1]
    assert beta is not None
    assert beta.notes == ()


@pytest.mark.slow
def test_a_stage_that_used_no_more_than_idle_has_no_energy_of_work() -> None:
    report = measured(used(900), used(3600), None).report(machines={"alpha": OURS})
    energy = report.timing.costs[0].wh_per_1000_usable
    assert energy is not None
    assert energy.value is None
    assert "idle" in (energy.reason or "")
    assert "\u22120.017 Wh" in render_markdown(report)  # 900 J less 960


def test_the_tutorials_run_stays_below_its_bound() -> None:
    # 1,932 chunks on one L4 of 72 W in 0.255 h: 18.36 Wh at most, however it is measured
    seconds = int(0.255 * 3600)
    power = measure(looks(*[72.0] * (seconds + 1), quantity="watts"))
    counter = measure(looks(*[72.0 * at_s for at_s in range(seconds + 1)]))
    for measured_energy in (power, counter):
        assert 18.3 < measured_energy.joules / 3600 <= 18.4


# ------------------------------------------------------------------------------------------------ a whole run


@pytest.mark.slow
def test_a_stage_puts_its_energy_on_record(tmp_path: Path, exporter: ExporterServer) -> None:
    config, out = tmp_path / "ours.yaml", tmp_path / "run"
    exporter.joules_per_reading = 60.0
    config.write_text(f"models: {{mistral: {{gpu_metrics: '{exporter.url}', idle_watts: 16}}}}\n")
    with LoopbackServer(["mistral"], latency_s=0.02) as server:
        arguments = ["mistral", "--endpoint", f"mistral={server.url}", "--n", "12", "--no-cache"]
        assert run(["generate", *arguments, "--out", str(out), "--config", str(config)]) == 0
    (line,) = (out / "sessions.jsonl").read_text().splitlines()
    recorded = Session.model_validate_json(line)
    assert recorded.energy is not None
    assert (recorded.energy.method, recorded.energy.source) == ("energy counter", "DCGM exporter")
    assert (recorded.energy.idle_watts, recorded.energy.idle) == (16, "registry")
    assert recorded.energy.gpus[0].joules == approx(60 * (exporter.n_asked - 1))
    assert 0 < recorded.energy.seconds <= recorded.seconds


def test_a_server_on_this_machine_is_measured_by_nvml(tmp_path: Path, driver: Driver) -> None:
    driver.cards = [Card(SECOND, n_processes=0), Card(joules_per_reading=60.0)]
    config, out = tmp_path / "ours.yaml", tmp_path / "run"
    config.write_text("models: {mistral: {idle_watts: 16}}\n")
    with LoopbackServer(["mistral"], latency_s=0.02) as server:
        arguments = ["mistral", "--endpoint", f"mistral={server.url}", "--n", "12", "--no-cache"]
        assert run(["generate", *arguments, "--out", str(out), "--config", str(config)]) == 0
    with RunStore.open(out) as store:
        (recorded,) = store.sessions()
    assert recorded.energy is not None
    assert (recorded.energy.method, recorded.energy.source) == ("energy counter", "NVML")
    assert [gpu.gpu for gpu in recorded.energy.gpus] == [FIRST]
    assert recorded.energy.gpus[0].joules == approx(60 * (driver.cards[1].n_readings - 1))
    assert driver.n_open == 0


def test_an_energy_that_is_not_known_is_on_record_with_its_reason(
    tmp_path: Path, exporter: ExporterServer
) -> None:
    config, out = tmp_path / "ours.yaml", tmp_path / "run"
    config.write_text(
        f"models: {{mistral: {{gpu_metrics: {{url: '{exporter.url}', labels: {{pod: vllm-7}}}}, idle_watts: 16}}}}\n"
    )
    with LoopbackServer(["mistral"]) as server:
        arguments = ["mistral", "--endpoint", f"mistral={server.url}", "--n", "2", "--no-cache"]
        assert run(["generate", *arguments, "--out", str(out), "--config", str(config)]) == 0
    with RunStore.open(out) as store:
        (recorded,) = store.sessions()
    assert recorded.energy is not None
    assert recorded.energy.method is None
    assert "{'pod': 'vllm-7'}" in recorded.energy.reason


def test_an_exporter_outside_the_network_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "ours.yaml"
    config.write_text("models: {mistral: {gpu_metrics: 'http://203.0.113.9:9400/metrics'}}\n")
    with LoopbackServer(["mistral", "qwen", "selene"]) as server:
        arguments = [word for name in server.models for word in ("--endpoint", f"{name}={server.url}")]
        options = ["--n", "2", "--out", str(tmp_path / "run"), "--config", str(config)]
        assert run(["compare", "mistral", "qwen", *arguments, *options]) == 69
    assert "mistral: gpu_metrics: '203.0.113.9'" in capsys.readouterr().err
