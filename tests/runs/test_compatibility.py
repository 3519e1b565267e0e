"""What may change on resume is applied; what may not is refused with both values."""

import pytest

from segkit.errors import ExitCode, UsageError
from segkit.runs.compatibility import refuse_incompatible

OLD = {
    "seed": 0,
    "optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-3},
    "trainer": {"max_epochs": 10, "accumulate": 1},
    "data": {"workers": 0, "split": {"folds": 5, "fold": 0}},
    "network": {"_target_": "a.B"},
    "early_stopping": {"patience": 5},
}


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": {**OLD["optimizer"], "lr": 5e-4}},
        {"trainer": {"max_epochs": 20, "accumulate": 1}},
        {"data": {"workers": 4, "split": OLD["data"]["split"]}},
        {"early_stopping": {"patience": 9}},
    ],
)
def test_these_changes_apply(change: dict) -> None:
    lines = refuse_incompatible(OLD, OLD | change, run_name="r")
    assert len(lines) == 1
    assert "->" in lines[0]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seed": 1}, "seed"),
        ({"optimizer": {"_target_": "torch.optim.SGD", "lr": 1e-3}}, "optimizer._target_"),
        ({"trainer": {"max_epochs": 10, "accumulate": 2}}, "trainer.accumulate"),
        ({"data": {"workers": 0, "split": {"folds": 5, "fold": 1}}}, "data.split.fold"),
        ({"network": {"_target_": "a.C"}}, "network._target_"),
    ],
)
def test_these_are_refused(change: dict, key: str) -> None:
    with pytest.raises(UsageError, match=key) as refused:
        refuse_incompatible(OLD, OLD | change, run_name="r")
    assert refused.value.exit_code == ExitCode.USAGE


def test_nothing_changed_says_nothing() -> None:
    assert refuse_incompatible(OLD, dict(OLD), run_name="r") == []
