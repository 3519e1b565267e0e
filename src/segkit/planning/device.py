"""What the planner wants to know about the device, and the one function that looks.

Kept apart from the plan, so that a plan can be made for any device on any machine, and tested so.
"""

import os
import platform
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from segkit.planning.bfloat16 import bf16_speedup

DeviceKind: TypeAlias = Literal["cpu", "cuda", "mps"]

_NATIVE_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
_GIB = 2**30


@dataclass(frozen=True)
class DeviceFacts:
    """The device as far as it moves a plan.

    Args:
        kind: "cpu", "cuda" or "mps".
        name: As the vendor calls it.
        memory_bytes: Memory of the device; of the machine where they are the same.
        cores: Processor cores this process may use.
        native_bf16: Whether there are instructions for bfloat16, rather than an emulation.
        bf16_speedup: Times as fast as float32, measured; None where nothing was measured (see `timed`).
    """

    kind: DeviceKind
    name: str
    memory_bytes: int
    cores: int
    native_bf16: bool
    bf16_speedup: float | None = None

    @property
    def memory_gib(self) -> float:
        """Memory in GiB."""
        return self.memory_bytes / _GIB

    def to_json(self) -> dict[str, Any]:
        """JSON-clean fields."""
        return asdict(self)


def device_facts(accelerator: str = "auto") -> DeviceFacts:
    """Look at the device that training would use.

    Args:
        accelerator: "auto" takes the best there is; "cpu", "gpu" or "cuda", "mps" ask for one.
    """
    cores, kind = usable_cores(), device_kind(accelerator)
    if kind == "cuda":
        facts = torch.cuda.get_device_properties(0)
        return DeviceFacts("cuda", facts.name, facts.total_memory, cores, native_bf16=facts.major >= 8)
    if kind == "mps":
        # Autocast to bfloat16 is not dependable on MPS; float32 is.
        return DeviceFacts("mps", platform.processor() or "mps", _machine_memory(), cores, native_bf16=False)
    flags, name = _processor(Path("/proc/cpuinfo"))
    return DeviceFacts("cpu", name, _machine_memory(), cores, native_bf16=bool(flags & _NATIVE_BF16_FLAGS))


def timed(device: DeviceFacts) -> DeviceFacts:
    """The same device with what it gains by bfloat16, measured where the instructions alone do not tell: 0.2 s."""
    if device.kind != "cpu" or not device.native_bf16 or device.bf16_speedup is not None:
        return device
    return replace(device, bf16_speedup=bf16_speedup())


def device_kind(accelerator: str = "auto") -> DeviceKind:
    """The kind of device that `accelerator` comes to on this machine; see `device_facts`."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def usable_cores() -> int:
    """Processor cores that this process may use; containers and batch systems give fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _machine_memory() -> int:
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" in names and "SC_PAGE_SIZE" in names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 8 * _GIB


def _processor(cpuinfo: Path) -> tuple[frozenset[str], str]:
    """Instruction-set flags and model name; empty flags where the system does not tell (then float32)."""
    if not cpuinfo.is_file():
        return frozenset(), platform.processor() or platform.machine()
    fields: dict[str, str] = {}
    for line in cpuinfo.read_text(errors="replace").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    return frozenset(fields.get("flags", "").split()), fields.get("model name", platform.machine())
