"""What can be wrong with a machine before any data is touched. Each check looks, and says what it found."""

import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch.nn import functional

from segkit.errors import SegkitError, StorageError, UsageError
from segkit.planning.device import DeviceFacts
from segkit.runs.environment import PACKAGES, package_version
from segkit.tracking.store_check import store_status

State = Literal["ok", "warning", "error"]

READERS: Final = ("nibabel", "simpleitk", "pillow", "tifffile")
_GIB = 2**30
_LITTLE_SHARED_MEMORY, _LITTLE_DISK, _FEW_FILES = 1 * _GIB, 5 * _GIB, 1024
BF16_TOLERANCE: Final = 0.02
"""Relative to the norm of the result: 8 bits of mantissa give 0.004 a rounding; a wrong kernel gives about 1."""
FP32_TOLERANCE: Final = 1e-3
"""Wide enough for TF32 (10 bits of mantissa), which GPUs may use for float32 convolutions."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Args:
        name: What.
        state: "ok"; "warning" where it costs speed or may fail later; "error" where training cannot work.
        found: What was found, with numbers.
        mend: What puts it right; empty where nothing is wrong.
        failure: The error a script should see.
    """

    name: str
    state: State
    found: str
    mend: str = ""
    failure: type[SegkitError] = UsageError

    def to_json(self) -> dict[str, str]:
        """Plain values."""
        return {"name": self.name, "state": self.state, "found": self.found, "mend": self.mend}


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> Check:
    """Python between 3.11 and 3.13."""
    text = f"{version[0]}.{version[1]}"
    if (3, 11) <= version < (3, 14):
        return Check("python", "ok", f"{text}, {sys.executable}")
    return Check("python", "warning", f"{text} is not one of 3.11, 3.12, 3.13", "make a .venv with one of these")


def check_packages(version_of: Callable[[str], str | None] = package_version) -> Check:
    """Every package is there."""
    versions = {name: version_of(name) for name in (*PACKAGES, *READERS)}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return Check("packages", "error", f"not installed: {', '.join(missing)}", "make setup, or pip install segkit")
    return Check("packages", "ok", ", ".join(f"{name} {version}" for name, version in versions.items()))


def check_device(device: DeviceFacts) -> Check:
    """Which device, and which precisions it computes natively."""
    native = "float32 and bfloat16" if device.native_bf16 else "float32; bfloat16 is emulated or not dependable"
    if device.bf16_speedup is not None:
        native += f" ({device.bf16_speedup:.2g} times as fast)"
    memory = f"{device.memory_gib:.1f} GiB"
    return Check("device", "ok", f"{device.kind}: {device.name}, {memory}, {device.cores} cores; natively {native}")


def check_threads(cores: int) -> Check:
    """As many threads as cores: more fight, fewer idle."""
    threads = torch.get_num_threads()
    limit = os.environ.get("OMP_NUM_THREADS")
    found = f"{threads} threads on {cores} cores" + (f", OMP_NUM_THREADS={limit}" if limit else "")
    if threads > cores:
        return Check("threads", "warning", found, f"trainer.threads={cores}")
    return Check("threads", "ok", found)


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Check:
    """Workers hand batches over through shared memory; containers often have 64 MiB of it."""
    if not folder.is_dir():
        return Check("shared memory", "ok", f"no {folder}: this system does not use one")
    usage = shutil.disk_usage(folder)
    found = f"{usage.free / _GIB:.1f} of {usage.total / _GIB:.1f} GiB free"
    if usage.free < _LITTLE_SHARED_MEMORY:
        return Check("shared memory", "warning", found, "docker run --shm-size=4g, or data.workers=0")
    return Check("shared memory", "ok", found)


def check_open_files() -> Check:
    """Each worker and each memory-mapped case holds files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _FEW_FILES:
        return Check("open files", "warning", f"at most {soft} (hard limit {hard})", f"ulimit -n {_FEW_FILES}")
    return Check("open files", "ok", "no limit" if soft == resource.RLIM_INFINITY else f"at most {soft}")


def check_disk(folder: Path) -> Check:
    """Where runs will be written there is room, and a file can be made."""
    here = next(candidate for candidate in (folder, *folder.parents) if candidate.is_dir())
    free = shutil.disk_usage(here).free
    found = f"{free / _GIB:.1f} GiB free for {folder}"
    try:
        with tempfile.NamedTemporaryFile(dir=here, prefix=".segkit-doctor-") as file:
            file.write(b"0")
            file.flush()
    except OSError as error:
        return Check("disk", "error", f"{here} cannot be written: {error}", "paths.runs=<folder>", StorageError)
    if free < _LITTLE_DISK:
        return Check("disk", "warning", found, "free some space, or paths.runs=<folder on another disk>")
    return Check("disk", "ok", found)


def check_convolution(device: DeviceFacts) -> Check:
    """A 3D convolution and its gradient in float32 and bfloat16, against float64 on the processor."""
    errors: dict[str, float] = {}
    try:
        for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
            errors[name] = convolution_error(device.kind, dtype)
    except RuntimeError as error:
        return Check(
            "convolution", "error", f"3D convolution fails on {device.kind}: {error}", "another build of torch"
        )
    found = ", ".join(f"{name} {error:.1e}" for name, error in errors.items()) + " from float64, relative"
    if not errors["float32"] <= FP32_TOLERANCE:
        return Check("convolution", "error", found, "another build of torch: this one computes wrong numbers")
    if not errors["bfloat16"] <= BF16_TOLERANCE:
        return Check("convolution", "warning", found, "trainer.precision=32-true")
    return Check("convolution", "ok", found)


def convolution_error(kind: str, dtype: torch.dtype) -> float:
    """Largest relative error of output, input gradient and weight gradient of a 3D convolution; NaN where one is.

    Each error is |x - r| / |r| in the Euclidean norm, r in float64 from the inputs as `dtype` holds them, so that only
    the computation counts.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 8, 12, 10, 9, generator=generator).to(dtype)
    weight = torch.randn(16, 8, 3, 3, 3, generator=generator).to(dtype)
    above = torch.randn(2, 16, 12, 10, 9, generator=generator).to(dtype)
    found = _convolution(image.to(kind), weight.to(kind), above.to(kind))
    reference = _convolution(image.double(), weight.double(), above.double())
    errors = [((x.cpu().double() - r).norm() / r.norm()).item() for x, r in zip(found, reference, strict=True)]
    return float("nan") if any(error != error for error in errors) else max(errors)


def check_mlflow(store: str | Path) -> Check:
    """A metric can be written to an MLflow store there and read back."""
    try:
        return Check("MLflow", "ok", store_status(store))
    except SegkitError as error:
        return Check("MLflow", "error", f"{error.where}: {error.why or error.what}", error.mend, type(error))


def machine_checks(device: DeviceFacts, paths: dict[str, Any]) -> list[Check]:
    """All of them, in the order a person reads them."""
    return [
        check_python(),
        check_packages(),
        check_device(device),
        check_threads(device.cores),
        check_convolution(device),
        check_shared_memory(),
        check_open_files(),
        check_disk(Path(paths["runs"]).expanduser().absolute()),
        check_mlflow(paths["mlflow"]),
    ]


def _convolution(
    image: torch.Tensor, weight: torch.Tensor, above: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    image, weight = image.requires_grad_(), weight.requires_grad_()
    output = functional.conv3d(image, weight, padding=1)
    grad_image, grad_weight = torch.autograd.grad(output, (image, weight), above)
    return output.detach(), grad_image, grad_weight
