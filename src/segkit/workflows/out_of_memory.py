"""Out of memory while training: one message with the keys that help, in the order in which they cost least."""

import errno
import math
from collections.abc import Iterator
from pathlib import Path
from traceback import walk_tb
from typing import Literal, TypeAlias

import torch

from segkit.errors import OutOfMemory, SegkitError
from segkit.planning.ladder import LADDER
from segkit.planning.plan import Plan
from segkit.types import Size

Stage: TypeAlias = Literal["training", "validation", "loading"]

_TEXTS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "status_alloc_failed",
    "cannot allocate memory",
)
"""What CUDA, MPS, the CPU's allocator, cuDNN, cuBLAS and the system say, in lower case."""
_VALIDATION_FRAMES = frozenset({"validation_step", "evaluate_case"})
_RUNGS = ("tiny", "small", "base", "large")
_AS_BASE = {"nnunet": "base"}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error, or what it came from, is a lack of memory of the device or of the machine."""
    return any(map(_is_one, _causes(error)))


def stage_of(error: BaseException) -> Stage:
    """What was going on, read from the error's traceback."""
    for each in _causes(error):
        if "DataLoader worker" in str(each):
            return "loading"
        if any(frame.f_code.co_name in _VALIDATION_FRAMES for frame, _ in walk_tb(each.__traceback__)):
            return "validation"
    return "training"


def explain_out_of_memory(
    error: BaseException,
    *,
    plan: Plan,
    stage: Stage,
    device: str,
    accumulate: int = 1,
    checkpoint: Path | None = None,
) -> OutOfMemory | None:
    """The message for a training that ran out of memory; None for any other error, and for one that has its own.

    Args:
        error: What was raised.
        plan: The run's plan.
        stage: What was going on, see `stage_of`.
        device: The device as torch writes it, "cuda:0".
        accumulate: Batches of an optimizer step.
        checkpoint: The last whole checkpoint; None where none was written yet.
    """
    if isinstance(error, SegkitError) or not is_out_of_memory(error):
        return None
    sizes = f"plan {plan.name}, patch {_sizes(plan.patch_size)}, batch {plan.batch_size}, {plan.precision}"
    sizes += f", tile batch {plan.tile_batch}" if stage == "validation" else ""
    kept = f"The last checkpoint is whole: {checkpoint}." if checkpoint else "No checkpoint had been written yet."
    what = "the machine's memory" if device == "cpu" or stage == "loading" else f"the memory of {device}"
    return OutOfMemory(
        f"Out of memory in {stage}: {what} is too small for this run. {kept}",
        where=f"{device}: {sizes}",
        why=_first_line(next(each for each in _causes(error) if _is_one(each))),
        mend=_mend(plan, stage, device=device, accumulate=accumulate),
    )


def smaller_patch(plan: Plan) -> Size | None:
    """A patch of at most half the voxels that the network still divides; None where there is none.

    The longest axis is cut each time, so that the patch becomes a cube rather than a slab.
    """
    divisors = [math.prod(stride[axis] for stride in plan.strides) for axis in range(plan.dimensions)]
    patch, half = list(plan.patch_size), math.prod(plan.patch_size) / 2
    while math.prod(patch) > half:
        # At least two voxels at the network's deepest stage, where normalisation needs more than one.
        axes = [axis for axis, divisor in enumerate(divisors) if patch[axis] - divisor >= 2 * divisor]
        if not axes:
            return None
        longest = max(axes, key=lambda axis: patch[axis])
        patch[longest] -= divisors[longest]
    return tuple(patch)


def _mend(plan: Plan, stage: Stage, *, device: str, accumulate: int) -> str:
    """The keys that help, cheapest first: those of this run, then those that make another run of it."""
    if stage == "loading":
        return "data.workers=<fewer>: each worker holds batches of its own; the same run_name goes on from there"
    now = []
    if stage == "validation" and plan.tile_batch > 1:
        now.append("validation.tile_batch=1")
    other = []
    if plan.batch_size > 1 and stage == "training":
        half = max(1, plan.batch_size // 2)
        factor = math.ceil(plan.batch_size / half)
        other.append(f"plan.batch_size={half} trainer.accumulate={accumulate * factor} (as many samples in a step)")
    patch = smaller_patch(plan)
    if patch is not None:
        other.append(f"plan.patch_size=[{','.join(map(str, patch))}]")
    smaller = _smaller_rung(plan.name)
    if smaller is not None:
        other.append(f"plan={smaller}")
    if plan.precision == "32-true" and device != "cpu":
        other.append("trainer.precision=bf16-mixed")
    parts = []
    if now:
        parts.append(f"{' or '.join(now)}, and the same run_name goes on from the checkpoint")
    if other:
        keeps = "with another run_name, since a run keeps its plan"
        parts.append(f"{', or '.join(other)}; {keeps}")
    if device.startswith("cuda"):
        parts.append("look with nvidia-smi whether other programs hold memory of the device")
    return ("; or " if now else "; ").join(parts) or "a machine with more memory"


def _smaller_rung(name: str) -> str | None:
    """The next rung down the ladder."""
    name = _AS_BASE.get(name, name)
    rungs = [rung for rung in _RUNGS if rung in LADDER]
    place = rungs.index(name) if name in rungs else 0
    return rungs[place - 1] if place > 0 else None


def _is_one(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _TEXTS)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # A worker's error begins with its traceback; what it says comes last.
    text = (lines[-1] if "DataLoader worker" in str(error) else lines[0]) if lines else "no further words"
    return f"{type(error).__name__}: {text[:300]}"


def _sizes(size: Size) -> str:
    return " x ".join(map(str, size))
