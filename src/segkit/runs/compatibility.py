"""What may change between two lives of a run, and what may not.

A rate, a patience, a number of epochs or of workers may change: the new value holds. What decides the network, the
data or which sample is the n-th may not: the run would no longer be the one its name stands for. Neither may what a
checkpoint brings back whatever the configuration says; a change that is accepted is a change that is applied.

Every key of the configuration stands in exactly one of two tables.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from segkit.errors import UsageError

FROZEN = (
    "seed",
    "data.layout",
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
    "weights",
    "weights_match",
    "loss",
    "augmentation",
    "optimizer",
    "scheduler",
    "score",
    "trainer.steps_per_epoch",
    "trainer.max_steps",
    "trainer.budget",
    "trainer.accumulate",
    "trainer.precision",
    "trainer.ema_decay",
    "validation.step",
    "privacy",  # a life that forgot it would send all that the lives before have kept at home
)
"""Keys, with all below them, that a run keeps for life, but for those in `FREE`."""

FREE = (
    "experiment",
    "run_name",
    "resume",
    "extra_epochs",
    "deterministic",
    "paths",
    "trainer.max_epochs",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.threads",
    "trainer.gradient_clip",
    "trainer.gradient_checkpointing",  # memory against time; the numbers stay
    "trainer.check_memory",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "validation.every_n_epochs",
    "validation.tile_batch",
    "validation.where",
    "validation.timeout_s",
    "select",
    "early_stopping",
    "nonfinite",
    "checkpoint",
    "overlays",
    "data.root",  # a data set may be moved; that its contents are the same is checked where it is opened
    "data.name",
    "data.workers",
    "data.persistent_workers",
    "data.timeout_s",
    "data.on_error",
    "data.max_skipped",
    "optimizer.lr",
    "scheduler.warmup_fraction",
    "scheduler.final",
    "scheduler.exponent",
    "scheduler.base_lr",
    "scheduler.max_lr",
    "scheduler.step_size",
    "tracking",
)
"""Keys, with all below them, whose new value holds from the next life on."""

CAME_LATER: Mapping[str, Any] = {
    "data.split.held_out": 0,
    "privacy": "none",
    "weights_match": "adapt",
    "network.gate": "grid",
    "network.squeeze_excitation": False,
    "network.norm": "batch",
    "loss.squared": False,
    "loss.label_smoothing": 0.0,
    "loss.terms.dice.squared": False,
    "loss.terms.ce.label_smoothing": 0.0,
}
"""Frozen keys that runs of earlier versions lack, and the value that every run had before there was the key."""

_OF_THE_STEP = frozenset(f"segkit.module.schedules.{name}" for name in ("constant", "cosine", "cyclic", "poly"))
"""Schedules that follow from the configuration and the step. The rate of any other comes with the checkpoint."""


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(key, old, new) of every leaf that differs, sorted by key; a missing leaf is None, or as in `CAME_LATER`."""
    before, after = ({**CAME_LATER, **dict(_leaves(config))} for config in (old, new))
    keys = sorted(before.keys() | after.keys())
    return [(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]


def is_frozen(key: str, *, schedule: str = "") -> bool:
    """Whether a run keeps this key for life.

    Args:
        key: With dots.
        schedule: Value of `scheduler._target_`; under a schedule with a memory the rate is frozen as well.
    """
    if key == "optimizer.lr" and schedule and schedule not in _OF_THE_STEP:
        return True
    return _in(key, FROZEN) and not _in(key, FREE)


def refuse_incompatible(old: Mapping[str, Any], new: Mapping[str, Any], *, run_name: str) -> list[str]:
    """Refuse what may not change.

    Returns:
        What has changed and may: one line each, for the banner.

    Raises:
        UsageError: A frozen key has changed; names all of them with both values.
    """
    schedule = str((new.get("scheduler") or {}).get("_target_", ""))
    changed = [change for change in differences(old, new) if change[0] != "overrides"]
    frozen = [f"{key}: {before!r} -> {after!r}" for key, before, after in changed if is_frozen(key, schedule=schedule)]
    if frozen:
        raise UsageError(
            "The run cannot go on with these changes.",
            where=f"run_name={run_name}",
            why="; ".join(frozen),
            mend="give the old values, or another run_name to start a run of its own",
        )
    return [f"{key}: {before!r} -> {after!r}" for key, before, after in changed]


def _in(key: str, table: tuple[str, ...]) -> bool:
    return any(key == entry or key.startswith(entry + ".") for entry in table)


def _leaves(value: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; a dictionary of the user may have numbers for keys, such as the epochs of a schedule."""
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from _leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner
