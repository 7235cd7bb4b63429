"""Energy and power of a server's GPUs: by NVML on this machine, or by a DCGM exporter elsewhere."""

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
"""DCGM writes numbers from 0x7ffffffffffffff0 up for missing values."""
_BLANK_W: Final = 2.0**47
_MILLI: Final = 1000.0
_OK: Final = 200
_TIMEOUT_S: Final = 3.0

Source: TypeAlias = Literal["NVML", "DCGM exporter"]


class NotMeteredError(Exception):
    """The energy of these GPUs cannot be measured; the message goes into the record of the session."""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """Energy and power of one GPU at one moment; None for values that it does not report."""

    name: str
    joules: float | None
    """Since its driver was loaded."""
    watts: float | None


class Meter(Protocol):
    """Reads the GPUs of one server."""

    @property
    def source(self) -> Source:
        """Where the readings are from."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    async def read(self) -> Mapping[str, GpuReading]:
        """Read all GPUs, by UUID; empty where none answers at this moment.

        Raises:
            NotMeteredError: a further reading would fail too.
        """
        ...

    async def notes(self) -> tuple[str, ...]:
        """Return remarks about the readings, such as other processes on a GPU."""
        ...


def gpu_meter(
    spec: ModelSpec, *, addresses: Sequence[str], exporter_addresses: Sequence[str]
) -> Meter | None:
    """Return a meter for the GPUs of a model's server; None where there is none.

    Args:
        spec: The registry's entry, with the URL of its server.
        addresses: Addresses of the server; NVML is used where all of them are loopback.
        exporter_addresses: Addresses of the exporter in the entry.
    """
    if spec.gpu_metrics is not None:
        server = Server(spec.gpu_metrics.url, None, _TIMEOUT_S, addresses=exporter_addresses)
        return Dcgm(server, spec.gpu_metrics.labels, n_gpus=spec.n_gpus)
    is_here = bool(addresses) and all(ip_address(address).is_loopback for address in addresses)
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
        names: Indices or UUIDs of the server's GPUs; empty: the only GPU on which a process computes.
    """

    source: Source = "NVML"

    def __init__(self, library: Any, names: Sequence[str]) -> None:  # noqa: ANN401 - a module without types
        self._library = library
        self._names = tuple(names)
        self._handles: dict[str, tuple[Any, str]] = {}

    async def __aenter__(self) -> Self:
        try:
            await asyncio.to_thread(self._library.nvmlInit)
        except self._library.NVMLError as error:
            raise NotMeteredError(f"the NVIDIA driver of this machine reports: {error}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._handles = {}
        self._call(self._library.nvmlShutdown)

    async def read(self) -> Mapping[str, GpuReading]:
        """Read all GPUs; see `Meter`."""
        return await asyncio.to_thread(self._read)

    async def notes(self) -> tuple[str, ...]:
        """Name the GPUs on which several processes compute."""
        return await asyncio.to_thread(self._shared)

    def _read(self) -> dict[str, GpuReading]:
        is_first = not self._handles
        self._handles = self._handles or self._choose()
        readings = {
            uuid: GpuReading(
                name,
                _from_milli(self._call(self._library.nvmlDeviceGetTotalEnergyConsumption, handle)),
                _from_milli(self._call(self._library.nvmlDeviceGetPowerUsage, handle)),
            )
            for uuid, (handle, name) in self._handles.items()
        }
        metered = {
            uuid: gpu for uuid, gpu in readings.items() if gpu.joules is not None or gpu.watts is not None
        }
        if is_first and len(metered) < len(readings):
            unmetered = ", ".join(sorted(readings.keys() - metered.keys()))
            raise NotMeteredError(f"the driver reports neither energy nor power of {unmetered}")
        return metered

    def _choose(self) -> dict[str, tuple[Any, str]]:
        devices = self._devices()
        chosen = [self._find(name, devices) for name in self._names] or self._computing(devices)
        for uuid in chosen:
            mode = self._call(self._library.nvmlDeviceGetMigMode, devices[uuid][0])
            if mode and mode[0] == self._library.NVML_DEVICE_MIG_ENABLE:
                raise NotMeteredError(f"{uuid} is partitioned (MIG); its counter is of all parts together")
        return {uuid: devices[uuid] for uuid in chosen}

    def _devices(self) -> dict[str, tuple[Any, str]]:
        """Return handle and name of every GPU, by UUID, in the order of ``nvidia-smi``."""
        library = self._library
        devices = {}
        for index in range(self._call(library.nvmlDeviceGetCount) or 0):
            handle = self._call(library.nvmlDeviceGetHandleByIndex, index)
            uuid = None if handle is None else self._call(library.nvmlDeviceGetUUID, handle)
            if uuid is not None:
                devices[uuid] = (handle, self._call(library.nvmlDeviceGetName, handle) or "")
        return devices

    def _find(self, name: str, devices: Mapping[str, Any]) -> str:
        if name.startswith("MIG-"):
            raise NotMeteredError(f"{name} is a part of a GPU, whose counter is of all parts together")
        matches = [
            uuid
            for index, uuid in enumerate(devices)
            if name == str(index) or (name.startswith("GPU-") and uuid.startswith(name))
        ]
        if not matches:
            raise NotMeteredError(f"this machine has no GPU {name!r}; it has {len(devices)}, counted from 0")
        return matches[0]

    def _computing(self, devices: Mapping[str, tuple[Any, str]]) -> list[str]:
        """Find the GPU of the server where the registry names none: the only busy one."""
        busy = [uuid for uuid, (handle, _) in devices.items() if self._n_processes(handle)]
        if len(busy) == 1:
            return busy
        if not busy:
            raise NotMeteredError(
                "NVML sees no process on a GPU of this machine: the server is elsewhere, or in a container; name its GPUs with "
                "`gpus:` in qaeval.yaml"
            )
        raise NotMeteredError(
            f"processes compute on {len(busy)} GPUs of this machine; name those of this server with `gpus:` in qaeval.yaml"
        )

    def _shared(self) -> tuple[str, ...]:
        shared = {uuid: self._n_processes(handle) for uuid, (handle, _) in self._handles.items()}
        return tuple(
            f"{n} processes compute on {uuid}: the energy of all of them is counted"
            for uuid, n in shared.items()
            if n > 1
        )

    def _n_processes(self, handle: Any) -> int:  # noqa: ANN401 - a type of NVML
        return len(self._call(self._library.nvmlDeviceGetComputeRunningProcesses, handle) or ())

    def _call(self, function: Any, *arguments: Any) -> Any:  # noqa: ANN401 - types of NVML
        """Call NVML; None where driver or GPU do not support the call."""
        try:
            return function(*arguments)
        except self._library.NVMLError:
            return None


class Dcgm:
    """GPUs of a DCGM exporter.

    Args:
        server: The exporter; its base URL is that of the metrics.
        labels: Labels of the server's GPUs in the metrics.
        n_gpus: Number of GPUs of the server; an exporter with more GPUs needs labels.
    """

    source: Source = "DCGM exporter"

    def __init__(self, server: Server, labels: Mapping[str, str], *, n_gpus: int = 1) -> None:
        self._server = server
        self._labels = labels
        self._n_gpus = n_gpus
        self._has_answered = False

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._server.__aexit__(kind, error, traceback)

    async def read(self) -> Mapping[str, GpuReading]:
        """Read all GPUs; see `Meter`."""
        answer = await self._server.ask("")
        try:
            gpus = read_exporter(answer.content.decode(), self._labels) if answer.status == _OK else {}
        except ValueError:
            gpus = {}
        if not gpus and not self._has_answered:
            labelled = f" of GPUs labelled {dict(self._labels)}" if self._labels else ""
            got = "neither" if answer.status == _OK else answer.summary
            raise NotMeteredError(f"{self._server.base}: expected {ENERGY} or {POWER}{labelled}, got {got}")
        if not self._labels and len(gpus) > self._n_gpus:
            raise NotMeteredError(
                f"{self._server.base} has {len(gpus)} GPUs, the server takes {self._n_gpus}; select them by labels in "
                "`gpu_metrics:` of qaeval.yaml"
            )
        self._has_answered = True
        return gpus

    async def notes(self) -> tuple[str, ...]:
        """Return nothing: an exporter does not report processes."""
        return ()


def read_exporter(text: str, labels: Mapping[str, str]) -> dict[str, GpuReading]:
    """Read energy and power of an exporter's GPUs, by UUID.

    Args:
        text: In Prometheus' format; one GPU may have several lines that differ in the pod's labels alone.
        labels: Only lines with all of these labels are read.

    Raises:
        ValueError: the text is not in that format.
        NotMeteredError: the lines are of MIG partitions, which have no separate counter.
    """
    lines = "\n".join(line for line in text.splitlines() if ENERGY in line or POWER in line)
    names: dict[str, str] = {}
    values: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(f"{lines}\n"):
        for sample in family.samples:
            metric = sample.name.removesuffix("_total")  # the parser adds it to every counter
            if metric not in {ENERGY, POWER} or not labels.items() <= sample.labels.items():
                continue
            gpu = (
                sample.labels.get("UUID")
                or f"{sample.labels.get('Hostname', '')}/{sample.labels.get('gpu', '')}"
            )
            if any(sample.labels.get(label) for label in _MIG_LABELS):
                raise NotMeteredError(f"{gpu} is partitioned (MIG); its counter is of all parts together")
            if 0 <= sample.value < (_BLANK_MJ if metric == ENERGY else _BLANK_W):
                names[gpu] = sample.labels.get("modelName", "")
                values[gpu, metric] = sample.value
    return {
        gpu: GpuReading(name, _from_milli(values.get((gpu, ENERGY))), values.get((gpu, POWER)))
        for gpu, name in names.items()
    }


def _from_milli(value: float | None) -> float | None:
    return None if value is None else value / _MILLI
