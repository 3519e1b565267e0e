"""One optimizer step that was left out: what it was fed with, the line about it, the file that repeats it."""

import io
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segkit.runs.files import atomic_write
from segkit.types import Batch

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Offence:
    """A batch whose loss or gradient was not finite. Plain values only: it crosses between processes.

    Args:
        case_id: Case of each sample of the batch.
        n: Running number of each sample.
        loss: Loss of the batch.
        mean, std, minimum, maximum: Of the finite values of its image; NaN where there is none.
        nonfinite: Values of the image that are NaN or infinite.
        values: Values of the image.
    """

    case_id: tuple[str, ...]
    n: tuple[int, ...]
    loss: float
    mean: float
    std: float
    minimum: float
    maximum: float
    nonfinite: int
    values: int

    @property
    def evident(self) -> bool:
        """Whether the batch betrays itself, rather than a gradient that another process may have spoilt."""
        return self.nonfinite > 0 or not math.isfinite(self.loss)

    @property
    def line(self) -> str:
        """What is known of it, in one line."""
        if not math.isfinite(self.loss):
            what = f"loss {self.loss:g}"
        else:
            what = f"a gradient that is not finite at loss {self.loss:g}"
        image = f"mean {self.mean:.4g}, std {self.std:.4g}, min {self.minimum:.4g}, max {self.maximum:.4g}"
        holes = f"{self.nonfinite} of {self.values} values are not finite" if self.nonfinite else "all values finite"
        return f"{what}; cases {listed(self.case_id)} (n {min(self.n)}-{max(self.n)}); image: {image}, {holes}"


def offence(batch: Batch, loss: float) -> Offence:
    """Look at a batch; reads all of its image, so only where something is wrong."""
    image = batch.image.detach().float()
    finite = image[image.isfinite()]
    std, mean = torch.std_mean(finite, correction=0) if len(finite) else (torch.tensor(torch.nan),) * 2
    low, high = finite.aminmax() if len(finite) else (torch.tensor(torch.nan),) * 2
    return Offence(
        case_id=tuple(batch.case_id),
        n=tuple(batch.n),
        loss=loss,
        mean=float(mean),
        std=float(std),
        minimum=float(low),
        maximum=float(high),
        nonfinite=image.numel() - len(finite),
        values=image.numel(),
    )


@dataclass(frozen=True)
class Culprit:
    """What spoilt a step.

    Args:
        rank: The process that had it.
        offence: Its first batch that was not finite.
        case_ids: All cases of the step that come into question, its other batches' too.
    """

    rank: int
    offence: Offence
    case_ids: tuple[str, ...]

    @property
    def line(self) -> str:
        """What is known, in one line."""
        others = [case for case in self.case_ids if case not in self.offence.case_id]
        return self.offence.line + (f"; its step also used cases {listed(others)}" if others else "")


def culprit(ranks: Sequence[tuple[Offence | None, tuple[str, ...]]]) -> Culprit:
    """Find what spoilt a step, from each rank's first offence and all its cases of the step.

    Gradients are averaged over the ranks, so one rank's NaN shows on all: a rank whose own loss or image is not
    finite is to blame before those that only have the gradient.
    """
    offences = {number: found for number, (found, _) in enumerate(ranks) if found is not None}
    blamed = {number: found for number, found in offences.items() if found.evident} or offences
    first = min(blamed)
    return Culprit(first, blamed[first], tuple(case for number in blamed for case in ranks[number][1]))


def save_batch(path: Path, batch: Batch, *, step: int, loss: float) -> bool:
    """Write a batch to `path`, to be looked at or to repeat the step with; loads with `weights_only=True`.

    A full or failing disk must not end a training for the sake of this file: it warns.

    Returns:
        Whether the file is there.
    """
    contents = {
        **_tensors(batch),
        "target": _tensors(batch.target),
        "case_id": list(batch.case_id),
        "n": list(batch.n),
        "step": step,
        "loss": loss,
    }
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, buffer.getvalue())
    except OSError as error:
        _logger.warning("The batch of the step that was left out could not be written to %s: %s", path, error)
        return False
    return True


def listed(names: Sequence[str], *, most: int = 12) -> str:
    """Names without repetition, the first of them where there are many."""
    different = list(dict.fromkeys(names))
    more = f" and {len(different) - most} more" if len(different) > most else ""
    return ", ".join(different[:most]) + more


def _tensors(record: Any) -> dict[str, Any]:  # noqa: ANN401  a Batch or a Target
    """Its tensors on the CPU, without the memory that they are a view of, and its plain numbers."""
    found: dict[str, Any] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Tensor):
            found[field.name] = value.detach().cpu().clone()
        elif field.name == "spacing" and value is not None:
            found[field.name] = list(value)
    return found
