"""Which checkpoint a run stands for. The highest of many noisy scores is partly luck; the rule allows for that."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from segkit.errors import StorageError
from segkit.runs.index import best, last
from segkit.runs.manifest import Entry

Rule = Literal["best_if_better", "best", "last"]
FEW_CASES = 10


@dataclass(frozen=True)
class PairedGain:
    """Mean of the per-case differences and its standard error over `n` cases (NaN below two cases)."""

    mean: float
    standard_error: float
    n: int


@dataclass(frozen=True)
class Selection:
    """The selected checkpoint and why it was chosen.

    Args:
        entry: The checkpoint.
        kind: Whether it is the best, the last, or both.
        reason: One sentence for banner and report.
        gain: Of best over last, where the two were compared.
        warning: Empty, or what makes the choice doubtful.
    """

    entry: Entry
    kind: Literal["best", "last"]
    reason: str
    gain: PairedGain | None = None
    warning: str = ""


def paired_gain(better: Entry, other: Entry) -> PairedGain:
    """Mean over cases of score(better) - score(other), with its standard error.

    d_i over the cases that both scored; mean(d) and std(d, ddof=1) / sqrt(n).
    """
    cases = sorted(better.per_case.keys() & other.per_case.keys())
    pairs = [(better.per_case[case], other.per_case[case]) for case in cases]
    gains = np.array([a - b for a, b in pairs if math.isfinite(a) and math.isfinite(b)], dtype=np.float64)
    if gains.size < 2:
        return PairedGain(float(gains.mean()) if gains.size else math.nan, math.nan, int(gains.size))
    return PairedGain(float(gains.mean()), float(gains.std(ddof=1) / math.sqrt(gains.size)), int(gains.size))


def select(entries: Sequence[Entry], rule: Rule = "best_if_better") -> Selection:
    """Choose a checkpoint.

    `best_if_better` takes the best one only when its paired per-case gain over the last one exceeds one standard
    error of that gain. Where nothing was validated, the last one is taken.

    Args:
        entries: The run's checkpoints.
        rule: As named.

    Raises:
        StorageError: There is no checkpoint.
    """
    newest, top = last(entries), best(entries)
    if newest is None:
        raise StorageError("The run has no checkpoint yet.", mend="train for at least one epoch")
    if rule == "last":
        return Selection(newest, "last", "the last checkpoint, as asked for (select=last)")
    if top is None:
        return Selection(newest, "last", "the last checkpoint: nothing was validated, so nothing is selected")
    warning = ""
    if (n := sum(math.isfinite(v) for v in top.per_case.values())) < FEW_CASES:
        warning = f"selected on {n} tuning cases; below {FEW_CASES} the choice is mostly chance"
    if rule == "best":
        return Selection(top, "best", "the checkpoint of the highest score, as asked for (select=best)", None, warning)
    # A run stopped within an epoch ends on a checkpoint without a score: the one to compare with is before it.
    compared = last([entry for entry in entries if entry.validated])
    assert compared is not None  # `top` is one of them
    if compared.step == top.step:
        return Selection(top, "best", "the last validated checkpoint is also the best", None, warning)
    gain = paired_gain(top, compared)
    text = f"gain {gain.mean:+.4f}, standard error {gain.standard_error:.4f}, {gain.n} cases"
    if gain.n >= 2 and gain.mean > gain.standard_error:
        return Selection(top, "best", f"the best is better than the last by more than chance ({text})", gain, warning)
    reason = f"the last: the best is not better by more than one standard error ({text})"
    return Selection(compared, "last", reason, gain, warning)
