"""best_if_better: the best replaces the last only beyond one standard error of the paired gain."""

import math

import numpy as np
import pytest

from segkit.errors import StorageError
from segkit.runs.manifest import Entry
from segkit.runs.selection import paired_gain, select


def entry(step: int, scores: list[float], *, validated: bool = True) -> Entry:
    per_case = {f"c{i}": s for i, s in enumerate(scores)}
    score = float(np.nanmean(scores)) if scores else None
    return Entry(step, step, step, step if validated else 0, score if validated else None, per_case)


def test_paired_gain_is_mean_and_standard_error_of_differences() -> None:
    a, b = np.array([0.9, 0.5, 0.7, 0.6]), np.array([0.8, 0.55, 0.6, 0.5])
    gain = paired_gain(entry(1, a.tolist()), entry(2, b.tolist()))
    d = a - b
    assert gain.mean == pytest.approx(d.mean())
    assert gain.standard_error == pytest.approx(np.sqrt(((d - d.mean()) ** 2).sum() / 3 / 4))
    assert gain.n == 4


def test_cases_without_score_are_left_out_of_both() -> None:
    gain = paired_gain(entry(1, [0.9, math.nan, 0.5]), entry(2, [0.8, 0.3, math.nan]))
    assert gain.n == 1
    assert gain.mean == pytest.approx(0.1)
    assert math.isnan(gain.standard_error)


def test_pairing_sees_a_small_steady_gain_that_the_spread_hides() -> None:
    base = np.linspace(0.1, 0.9, 12)
    steady = select([entry(1, (base + 0.02).tolist()), entry(2, base.tolist())])
    assert (steady.entry.step, steady.kind, steady.warning) == (1, "best", "")
    noise = np.tile([0.22, -0.2], 6)  # the same mean gain of 0.01, by chance
    lucky = select([entry(1, (base + noise).tolist()), entry(2, base.tolist())])
    assert (lucky.entry.step, lucky.kind) == (2, "last")
    assert "standard error" in lucky.reason


def test_rules_on_request() -> None:
    entries = [entry(1, [0.9, 0.2]), entry(2, [0.1, 0.8])]
    assert select(entries, "best").entry.step == 1
    assert select(entries, "last").entry.step == 2


def test_best_that_is_last() -> None:
    assert select([entry(1, [0.1] * 10), entry(2, [0.2] * 10)]).kind == "best"


def test_few_cases_are_said() -> None:
    assert "9 tuning cases" in select([entry(1, [0.5] * 9)]).warning
    assert select([entry(1, [0.5] * 10)]).warning == ""


def test_one_case_cannot_decide() -> None:
    assert select([entry(1, [0.9]), entry(2, [0.1])]).entry.step == 2


def test_nothing_validated_takes_the_last() -> None:
    assert select([entry(1, [], validated=False), entry(2, [], validated=False)]).entry.step == 2


def test_unvalidated_last_is_compared_by_the_one_before_it() -> None:
    entries = [entry(1, [0.5] * 10), entry(2, [0.4] * 10), entry(3, [], validated=False)]
    assert select(entries).entry.step == 1
    assert select(entries, "last").entry.step == 3


def test_no_checkpoint() -> None:
    with pytest.raises(StorageError, match="no checkpoint"):
        select([])
