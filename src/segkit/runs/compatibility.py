"""What may change between two lives of a run, and what may not.

A rate, a patience, a number of epochs or of workers may change: the new value holds. What decides the network, the
data or which sample is the n-th may not: the run would no longer be the one its name stands for.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from segkit.errors import UsageError

FROZEN = (
    "seed",
    "data.root",
    "data.labels",
    "data.ignore_label",
    "data.groups",
    "data.laterality",
    "data.max_cases",
    "data.foreground_oversampling",
    "data.order",
    "data.split",
    "plan",
    "network",
    "loss",
    "augmentation",
    "optimizer._target_",
    "score",
    "trainer.steps_per_epoch",
    "trainer.accumulate",
    "trainer.precision",
    "trainer.ema_decay",
    "validation.step",
)
"""Keys, with all below them, that a run keeps for life."""


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(key, old, new) of every leaf that differs, sorted by key; a missing leaf is None."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    keys = sorted(before.keys() | after.keys())
    return [(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def is_frozen(key: str) -> bool:
    """Whether a run keeps this key for life."""
    return any(key == frozen or key.startswith(frozen + ".") for frozen in FROZEN)


def refuse_incompatible(old: Mapping[str, Any], new: Mapping[str, Any], *, run_name: str) -> list[str]:
    """Refuse what may not change.

    Returns:
        What has changed and may: one line each, for the banner.

    Raises:
        UsageError: A frozen key has changed; names all of them with both values.
    """
    changed = [change for change in differences(old, new) if change[0] != "overrides"]
    frozen = [f"{key}: {before!r} -> {after!r}" for key, before, after in changed if is_frozen(key)]
    if frozen:
        raise UsageError(
            "The run cannot go on with these changes.",
            where=f"run_name={run_name}",
            why="; ".join(frozen),
            mend="give the old values, or another run_name to start a run of its own",
        )
    return [f"{key}: {before!r} -> {after!r}" for key, before, after in changed]


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from _leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner
