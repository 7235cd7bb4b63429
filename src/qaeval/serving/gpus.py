"""What a server's GPUs say of their energy: NVML on this machine, or a DCGM exporter wherever they are."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self, TypeAlias

from prometheus_client.parser import text_string_to_metric_families

from qaeval.registry.model import ModelSpec
from qaeval.serving.client import Server

ENERGY: Final = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
"""Counter of a DCGM exporter, in mJ since the driver was loaded."""
POWER: Final = "DCGM_FI_DEV_POWER_USAGE"
"""Gauge of a DCGM exporter, in W."""

_MIG_LABELS: Final = ("GPU_I_ID", "GPU_I_PROFILE")
_BLANK_MJ: Final = 9.2e18
"""DCGM writes numbers from 0x7ffffffffffffff0 up where it has none."""
_BLANK_W: Final = 2.0**47
_MILLI: Final = 1000.0
_OK: Final = 200
_ANSWER_S: Final = 3.0

Source: TypeAlias = Literal["NVML", "DCGM exporter"]


class NotMeteredError(Exception):
    """The energy of these GPUs cannot be known; the text says why, and stands in the record of the session."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """What one GPU said at one moment; None where it does not say."""

    name: str
    joules: float | None
    """Counted since its driver was loaded."""
    watts: float | None


class Meter(Protocol):
    """Reads the GPUs of one server."""

    @property
    def source(self) -> Source:
        """What it asks."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    async def read(self) -> Mapping[str, Gpu]:
        """Return what each GPU says, by UUID; nothing where none answers at this moment.

        Raises:
            NotMeteredError: there is no use in asking again.
        """
        ...

    async def notes(self) -> tuple[str, ...]:
        """Say what else is in the numbers."""
        ...


def gpu_meter(
    spec: ModelSpec, *, addresses: Sequence[str], exporter_addresses: Sequence[str]
) -> Meter | None:
    """Find what can read the GPUs of a model's server; None where nothing can.

    Args:
        spec: The registry's entry, with the URL of its server.
        addresses: Of the server; NVML is asked where all of them are loopback.
        exporter_addresses: Of the exporter that the entry names.
    """
    if spec.gpu_metrics is not None:
        server = Server(spec.gpu_metrics.url, None, _ANSWER_S, addresses=exporter_addresses)
        return Dcgm(server, spec.gpu_metrics.labels, n_gpus=spec.n_gpus)
    is_here = bool(addresses) and all(ip_address(one).is_loopback for one in addresses)
    if not is_here or (spec.replicas and not spec.gpus):
        return None
    library = load_nvml()
    return None if library is None else Nvml(library, spec.gpus)


def load_nvml() -> Any | None:  # noqa: ANN401 - a module without types
    """Load NVML; None where the extra ``energy`` is not installed or the machine has no NVIDIA driver."""
    try:
        library = import_module("pynvml")
    except ImportError:
        return None
    try:
        library.nvmlInit()
    except library.NVMLError:
        return None
    library.nvmlShutdown()
    return library


class Nvml:
    """GPUs of this machine.

    Args:
        library: ``pynvml``.
        wanted: Indices or UUIDs of the server's GPUs; empty: the only one on which a process computes.
    """

    source: Source = "NVML"

    def __init__(self, library: Any, wanted: Sequence[str]) -> None:  # noqa: ANN401 - a module without types
        self._library = library
        self._wanted = tuple(wanted)
        self._handles: dict[str, tuple[Any, str]] = {}

    async def __aenter__(self) -> Self:
        try:
            await asyncio.to_thread(self._library.nvmlInit)
        except self._library.NVMLError as error:
            raise NotMeteredError(f"the NVIDIA driver of this machine says: {error}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._handles = {}
        self._asked(self._library.nvmlShutdown)

    async def read(self) -> Mapping[str, Gpu]:
        """Return what each GPU says; see `Meter`."""
        return await asyncio.to_thread(self._read)

    async def notes(self) -> tuple[str, ...]:
        """Say which GPUs other processes work on."""
        return await asyncio.to_thread(self._shared)

    def _read(self) -> dict[str, Gpu]:
        is_first = not self._handles
        self._handles = self._handles or self._choose()
        said = {
            uuid: Gpu(
                name,
                _per_mille(self._asked(self._library.nvmlDeviceGetTotalEnergyConsumption, handle)),
                _per_mille(self._asked(self._library.nvmlDeviceGetPowerUsage, handle)),
            )
            for uuid, (handle, name) in self._handles.items()
        }
        found = {uuid: one for uuid, one in said.items() if one.joules is not None or one.watts is not None}
        if is_first and len(found) < len(said):
            mute = ", ".join(sorted(said.keys() - found.keys()))
            raise NotMeteredError(f"the driver tells neither the energy nor the power of {mute}")
        return found

    def _choose(self) -> dict[str, tuple[Any, str]]:
        known = self._known()
        chosen = [self._find(name, known) for name in self._wanted] or self._computing(known)
        for uuid in chosen:
            mode = self._asked(self._library.nvmlDeviceGetMigMode, known[uuid][0])
            if mode and mode[0] == self._library.NVML_DEVICE_MIG_ENABLE:
                raise NotMeteredError(f"{uuid} is partitioned (MIG) and counts for all its parts together")
        return {uuid: known[uuid] for uuid in chosen}

    def _known(self) -> dict[str, tuple[Any, str]]:
        """Return handle and name of every GPU, by UUID, in the order of ``nvidia-smi``."""
        library = self._library
        known = {}
        for index in range(self._asked(library.nvmlDeviceGetCount) or 0):
            handle = self._asked(library.nvmlDeviceGetHandleByIndex, index)
            uuid = None if handle is None else self._asked(library.nvmlDeviceGetUUID, handle)
            if uuid is not None:
                known[uuid] = (handle, self._asked(library.nvmlDeviceGetName, handle) or "")
        return known

    def _find(self, name: str, known: Mapping[str, Any]) -> str:
        if name.startswith("MIG-"):
            raise NotMeteredError(f"{name} is a part of a GPU, which counts for all its parts together")
        found = [
            uuid
            for index, uuid in enumerate(known)
            if name == str(index) or (name.startswith("GPU-") and uuid.startswith(name))
        ]
        if not found:
            raise NotMeteredError(f"this machine has no GPU {name!r}; it has {len(known)}, counted from 0")
        return found[0]

    def _computing(self, known: Mapping[str, tuple[Any, str]]) -> list[str]:
        """Find the one GPU that the server can be on, where nobody says which."""
        busy = [uuid for uuid, (handle, _) in known.items() if self._n_processes(handle)]
        if len(busy) == 1:
            return busy
        if not busy:
            raise NotMeteredError(
                "no process that NVML can see computes on a GPU of this machine: the server is elsewhere, or in a container of its "
                "own; name its GPUs with `gpus:` in qaeval.yaml"
            )
        raise NotMeteredError(
            f"processes compute on {len(busy)} GPUs of this machine, and nobody says which are this server's: name them with "
            "`gpus:` in qaeval.yaml"
        )

    def _shared(self) -> tuple[str, ...]:
        shared = {uuid: self._n_processes(handle) for uuid, (handle, _) in self._handles.items()}
        return tuple(
            f"{n} processes compute on {uuid}: what all of them used is counted"
            for uuid, n in shared.items()
            if n > 1
        )

    def _n_processes(self, handle: Any) -> int:  # noqa: ANN401 - NVML's own
        return len(self._asked(self._library.nvmlDeviceGetComputeRunningProcesses, handle) or ())

    def _asked(self, function: Any, *arguments: Any) -> Any:  # noqa: ANN401 - NVML's own
        """Call NVML; None where the driver or the GPU cannot say."""
        try:
            return function(*arguments)
        except self._library.NVMLError:
            return None


class Dcgm:
    """GPUs that an exporter shows.

    Args:
        server: The exporter; its base URL is that of the metrics.
        labels: What the metrics of the server's GPUs are labelled with.
        n_gpus: How many GPUs the server takes; with more than these and no labels it is not known which are its own.
    """

    source: Source = "DCGM exporter"

    def __init__(self, server: Server, labels: Mapping[str, str], *, n_gpus: int = 1) -> None:
        self._server = server
        self._labels = labels
        self._n_gpus = n_gpus
        self._is_known = False

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._server.__aexit__(kind, error, traceback)

    async def read(self) -> Mapping[str, Gpu]:
        """Return what each GPU says; see `Meter`."""
        answer = await self._server.ask("")
        try:
            found = read_exporter(answer.content.decode(), self._labels) if answer.status == _OK else {}
        except ValueError:
            found = {}
        if not found and not self._is_known:
            labelled = f" of GPUs labelled {dict(self._labels)}" if self._labels else ""
            came = "neither" if answer.status == _OK else answer.shown
            raise NotMeteredError(f"{self._server.base}: expected {ENERGY} or {POWER}{labelled}, got {came}")
        if not self._labels and len(found) > self._n_gpus:
            raise NotMeteredError(
                f"{self._server.base} shows {len(found)} GPUs, the server takes {self._n_gpus}: say which with labels in "
                "`gpu_metrics:` of qaeval.yaml"
            )
        self._is_known = True
        return found

    async def notes(self) -> tuple[str, ...]:
        """Say nothing: an exporter does not know of processes."""
        return ()


def read_exporter(text: str, labels: Mapping[str, str]) -> dict[str, Gpu]:
    """Read energy and power of the GPUs that an exporter shows, by UUID.

    Args:
        text: In Prometheus' format; one GPU may have several lines that differ in the pod's labels alone.
        labels: Lines without one of these are left out.

    Raises:
        ValueError: the text is not in that format.
        NotMeteredError: the lines are those of parts of a GPU, which have no counter of their own.
    """
    own = "\n".join(line for line in text.splitlines() if ENERGY in line or POWER in line)
    names: dict[str, str] = {}
    values: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(f"{own}\n"):
        for sample in family.samples:
            metric = sample.name.removesuffix("_total")  # the parser adds it to every counter
            if metric not in {ENERGY, POWER} or not labels.items() <= sample.labels.items():
                continue
            gpu = (
                sample.labels.get("UUID")
                or f"{sample.labels.get('Hostname', '')}/{sample.labels.get('gpu', '')}"
            )
            if any(sample.labels.get(label) for label in _MIG_LABELS):
                raise NotMeteredError(f"{gpu} is partitioned (MIG) and counts for all its parts together")
            if 0 <= sample.value < (_BLANK_MJ if metric == ENERGY else _BLANK_W):
                names[gpu] = sample.labels.get("modelName", "")
                values[gpu, metric] = sample.value
    return {
        gpu: Gpu(name, _per_mille(values.get((gpu, ENERGY))), values.get((gpu, POWER)))
        for gpu, name in names.items()
    }


def _per_mille(value: float | None) -> float | None:
    return None if value is None else value / _MILLI
