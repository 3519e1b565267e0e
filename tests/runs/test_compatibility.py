"""What may change on resume is applied; what may not is refused with both values."""

import pytest

from segkit.configuration import compose
from segkit.errors import ExitCode, UsageError
from segkit.runs.compatibility import CAME_LATER, FREE, FROZEN, _in, refuse_incompatible

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


def test_a_run_from_before_a_frozen_key_goes_on_with_its_default_and_with_nothing_else() -> None:
    def now(held_out: float) -> dict:
        return OLD | {"data": {"workers": 0, "split": {"folds": 5, "fold": 0, "held_out": held_out}}}

    assert refuse_incompatible(OLD, now(0), run_name="r") == []
    assert refuse_incompatible(now(0.0), OLD, run_name="r") == []
    for old, new in ((OLD, now(0.2)), (now(2), now(0)), (now(2), OLD)):
        with pytest.raises(UsageError, match=r"data\.split\.held_out"):
            refuse_incompatible(old, new, run_name="r")


def test_an_attention_unet_from_before_there_were_two_gates_goes_on_with_the_one_there_was() -> None:
    old = OLD | {"network": {"_target_": "a.B", "attention": True}}
    new = OLD | {"network": {"_target_": "a.B", "attention": True, "gate": "grid", "squeeze_excitation": False}}
    assert refuse_incompatible(old, new, run_name="r") == []
    other = OLD | {"network": {**new["network"], "gate": "equal_resolution"}}
    with pytest.raises(UsageError, match=r"network\.gate: 'grid' -> 'equal_resolution'"):
        refuse_incompatible(old, other, run_name="r")


def test_what_came_later_is_frozen_and_has_the_value_of_the_composed_default() -> None:
    chosen = {
        "loss.squared": ["loss=dice"],
        "loss.label_smoothing": ["loss=cross_entropy"],
        # The default is another one now: who goes on with such a run says so, and is told to where it is forgotten.
        "network.norm": ["network=flexible_unet", "network.norm=batch"],
    }
    for key, value in CAME_LATER.items():
        node = compose("train", chosen.get(key, []))
        for part in key.split("."):
            node = node[part]
        assert node == value
        assert _in(key, FROZEN)
        assert not _in(key, FREE)


def test_nothing_changed_says_nothing() -> None:
    assert refuse_incompatible(OLD, dict(OLD), run_name="r") == []


def leaves(config: dict, prefix: str = "") -> set[str]:
    found = set()
    for key, value in config.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key}
    return found


CHOICES = ["scheduler=plateau", "scheduler=cyclic", "scheduler=poly", "optimizer=sgd", "tracking=none"]


def test_every_key_of_a_training_is_in_one_of_the_two_tables() -> None:
    """Whoever adds a key says whether it may change between two lives, and sees to it that the change is applied."""
    keys = set().union(*(leaves(compose("train", words)) for words in ([], *([choice] for choice in CHOICES))))
    assert len(keys) > 100
    unclassified = [key for key in sorted(keys) if not _in(key, FROZEN) and not _in(key, FREE)]
    assert unclassified == []
    assert [entry for entry in (*FROZEN, *FREE) if not any(_in(key, (entry,)) for key in keys)] == []


def test_no_entry_is_in_both_tables_and_what_is_free_within_frozen_is_named_singly() -> None:
    assert set(FROZEN) & set(FREE) == set()
    assert [entry for entry in FROZEN if _in(entry, FREE)] == []
    inner = sorted(entry for entry in FREE if _in(entry, FROZEN))
    assert {entry.partition(".")[0] for entry in inner} == {"optimizer", "scheduler"}
