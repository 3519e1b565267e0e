"""Out of memory while training: one message with the keys that help, in the order in which they cost least."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from traceback import walk_tb
from typing import Literal, TypeAlias

from segkit.errors import OutOfMemory, SegkitError
from segkit.ops.lack_of_memory import causes, says_out_of_memory
from segkit.ops.lack_of_memory import is_out_of_memory as is_out_of_memory
from segkit.planning.ladder import LADDER
from segkit.planning.plan import Plan
from segkit.planning.training_memory import size_text
from segkit.types import Size

Stage: TypeAlias = Literal["training", "validation", "loading"]

_VALIDATION_FRAMES = frozenset({"validation_step", "evaluate_case"})
_RUNGS = ("tiny", "small", "base", "large")
_AS_ON_THE_LADDER = {"nnunet": "base", "resenc_m": "base", "resenc_l": "large", "resenc_xl": "large"}
"""Rungs that need about as much as one of these or more."""


@dataclass(frozen=True)
class Remedy:
    """Keys that need less memory.

    Args:
        keys: As they are typed.
        note: What is to be said of them.
        plan: The plan as it would be; None where that is not known without the data.
        rung: The rung of the ladder that they ask for, or "".
        recompute: Whether they switch gradient checkpointing on.
        same_run: Whether a run that has begun may take them.
    """

    keys: str
    note: str = ""
    plan: Plan | None = None
    rung: str = ""
    recompute: bool = False
    same_run: bool = False


Predicted: TypeAlias = Callable[[Remedy], int | None]
"""Bytes that training would take with a remedy; None where that is not known."""


def stage_of(error: BaseException) -> Stage:
    """What was going on, read from the error's traceback."""
    for each in causes(error):
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
    recompute: bool = False,
    predicted: Predicted | None = None,
) -> OutOfMemory | None:
    """The message for a training that ran out of memory; None for any other error, and for one that has its own.

    Args:
        error: What was raised.
        plan: The run's plan.
        stage: What was going on, see `stage_of`.
        device: The device as torch writes it, "cuda:0".
        accumulate: Batches of an optimizer step.
        checkpoint: The last whole checkpoint; None where none was written yet.
        recompute: Whether gradient checkpointing could be switched on.
        predicted: What training would take with a remedy; None: nothing is said of that.
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
        why=_first_line(next(each for each in causes(error) if says_out_of_memory(each))),
        mend=mend_text(
            remedies(plan, stage, device=device, accumulate=accumulate, recompute=recompute),
            device=device,
            predicted=predicted if stage == "training" else None,
        ),
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


def remedies(plan: Plan, stage: Stage, *, device: str, accumulate: int, recompute: bool) -> list[Remedy]:
    """What helps, cheapest first: what this run may change, then what makes another run of it.

    Args:
        plan: The run's plan.
        stage: What needs the memory.
        device: The device as torch writes it.
        accumulate: Batches of an optimizer step.
        recompute: Whether gradient checkpointing could be switched on.
    """
    if stage == "loading":
        note = ": each worker holds batches of its own"
        return [Remedy("data.workers=<fewer>", note, same_run=True)]
    found = []
    if stage == "training" and recompute:
        note = " (the same numbers, about a third more time)"
        found.append(Remedy("trainer.gradient_checkpointing=true", note, plan=plan, recompute=True, same_run=True))
    if stage == "validation" and plan.tile_batch > 1:
        found.append(Remedy("validation.tile_batch=1", plan=replace(plan, tile_batch=1), same_run=True))
    if stage == "training" and plan.batch_size > 1:
        half = max(1, plan.batch_size // 2)
        more = accumulate * math.ceil(plan.batch_size / half)
        keys = f"plan.batch_size={half} trainer.accumulate={more}"
        found.append(Remedy(keys, " (as many samples in a step)", plan=replace(plan, batch_size=half)))
    patch = smaller_patch(plan)
    if patch is not None:
        keys = f"plan.patch_size=[{','.join(map(str, patch))}]"
        found.append(Remedy(keys, plan=replace(plan, patch_size=patch)))
    smaller = _smaller_rung(plan.name)
    if smaller is not None:
        found.append(Remedy(f"plan={smaller}", rung=smaller))
    if plan.precision == "32-true" and device != "cpu":
        found.append(Remedy("trainer.precision=bf16-mixed", plan=replace(plan, precision="bf16-mixed")))
    return found


def mend_text(found: Sequence[Remedy], *, device: str, predicted: Predicted | None = None) -> str:
    """The remedies in one line, each with what training would take.

    Args:
        found: Cheapest first.
        device: The device as torch writes it.
        predicted: Bytes of each; None: nothing is said of that.
    """

    def told(remedy: Remedy) -> str:
        size = predicted(remedy) if predicted is not None else None
        return remedy.keys + remedy.note + (f" [{size_text(size)}]" if size is not None else "")

    now = [told(remedy) for remedy in found if remedy.same_run]
    other = [told(remedy) for remedy in found if not remedy.same_run]
    parts = []
    if now:
        parts.append(f"{' or '.join(now)}, and the same run_name goes on")
    if other:
        parts.append(f"{', or '.join(other)}; with another run_name, since a run keeps its plan")
    if device.startswith("cuda"):
        parts.append("look with nvidia-smi whether other programs hold memory of the device")
    return ("; or " if now and other else "; ").join(parts) or "a machine with more memory"


def _smaller_rung(name: str) -> str | None:
    """The next rung down the ladder."""
    name = _AS_ON_THE_LADDER.get(name, name)
    rungs = [rung for rung in _RUNGS if rung in LADDER]
    place = rungs.index(name) if name in rungs else 0
    return rungs[place - 1] if place > 0 else None


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # A worker's error begins with its traceback; what it says comes last.
    text = (lines[-1] if "DataLoader worker" in str(error) else lines[0]) if lines else "no further words"
    return f"{type(error).__name__}: {text[:300]}"


def _sizes(size: Size) -> str:
    return " x ".join(map(str, size))
