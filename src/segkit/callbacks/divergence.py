"""When a training has failed by itself: too many steps left out, or weights that are no numbers any more."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segkit.callbacks.skipped_step import listed
from segkit.errors import Diverged

FEW = 10
"""Only more left-out steps than these can end a run by their share: one at the start is no share."""
_MEND = (
    "look at the cases with `python -m segkit.check`; lower optimizer.lr to a third or set trainer.gradient_clip=1 "
    "and go on with the same run_name, with resume=<folder of an earlier checkpoint> where it comes back at once; or "
    "start another run with trainer.precision=32-true"
)


@dataclass(frozen=True)
class Limits:
    """What a run bears.

    Args:
        in_a_row: Most steps left out one after the other.
        share: Largest share of the run's steps left out, once these are more than `FEW`.
    """

    in_a_row: int = 10
    share: float = 0.01

    def exceeded(self, *, in_a_row: int, skipped: int, steps: int) -> str | None:
        """Why a run with these counts ends; None where it goes on. Asked after each step that was left out.

        Args:
            in_a_row: Steps left out one after the other, up to now.
            skipped: Steps left out since the run began.
            steps: Steps since the run began, those left out included.
        """
        if in_a_row > self.in_a_row:
            return f"{in_a_row} steps in a row were left out, nonfinite.in_a_row={self.in_a_row} are borne"
        if skipped > FEW and skipped > self.share * steps:
            found = f"{skipped} of {steps} steps ({skipped / steps:.1%}) were left out"
            return f"{found}, a share of nonfinite.share={self.share:g} is borne"
        return None


def too_many_left_out(
    why: str, *, step: int, case_ids: Sequence[str], kept: str | None, broken: Sequence[str]
) -> Diverged:
    """The error of a run that is beyond its limits.

    Args:
        why: What `Limits.exceeded` says.
        step: The latest optimizer step.
        case_ids: Cases of the latest steps in a row that were left out.
        kept: Folder of the offending batches that were kept; None where none was.
        broken: Names of weights that are not finite.
    """
    weights = f"the weights are not finite either ({listed(broken, most=3)})" if broken else "the weights are finite"
    return Diverged(
        "Training has failed: too many steps had a loss or a gradient that is not finite.",
        where=f"optimizer step {step}, cases {listed(case_ids)}" + (f"; batches in {kept}" if kept else ""),
        why=f"{why}; {weights}",
        mend=_MEND,
    )


def weights_lost(broken: Sequence[str], *, of: int, step: int) -> Diverged:
    """The error of a checkpoint that would hold weights that are not finite."""
    return Diverged(
        "Training has failed: the weights are no longer finite. No checkpoint was written of them, earlier ones stay.",
        where=f"optimizer step {step}",
        why=f"NaN or infinity in {len(broken)} of {of} tensors: {listed(broken, most=3)}",
        mend=_MEND,
    )


@torch.no_grad()
def nonfinite_names(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity; waits for the device once where none does."""
    floating = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()}
    if not floating:
        return []
    largest = torch._foreach_norm(list(floating.values()), math.inf)
    if bool(torch.stack([each.isfinite().to(largest[0].device) for each in largest]).all()):
        return []
    return [name for name, each in zip(floating, largest, strict=True) if not bool(each.isfinite())]
