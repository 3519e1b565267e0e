"""Rules that bind several keys together; what one key allows stands in its comment."""

from collections.abc import Iterator, Mapping
from typing import Any

from segkit.configuration.problems import Problem
from segkit.planning.budget import seconds
from segkit.runs.locate import name_fault


def check_rules(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Name every rule that a resolved configuration breaks; rules about sections that it lacks are passed over."""
    yield from _score(config.get("score") or {})
    yield from _split(config.get("data") or {})
    yield from _selection(config)
    yield from _plan(config.get("plan") or {})
    yield from _scheduler(config.get("scheduler") or {})
    yield from _validation(config)
    yield from _changing_loss(config)
    yield from _length(config.get("trainer") or {})
    name = config.get("run_name")
    if isinstance(name, str) and (fault := name_fault(name)):
        why = f"a run lies under paths.runs, and {fault}"
        yield Problem(f"run_name={name[:80]!r}", why, "Set paths.runs as well.", "run_name")


def _score(score: Mapping[str, Any]) -> Iterator[Problem]:
    weights = score.get("weights") or {}
    total = sum(weights.values())
    if weights and abs(total - 1) > 1e-6:
        terms = " + ".join(f"{name} {weight:g}" for name, weight in weights.items())
        yield Problem(
            "score.weights",
            f"weights must sum to 1, found {terms} = {total:g}",
            f"Set all {len(weights)} of them, 0 for what shall not count.",
            "score.weights",
        )


def _split(data: Mapping[str, Any]) -> Iterator[Problem]:
    split = data.get("split") or {}
    if split and split["fold"] >= split["folds"]:
        why = f"there are {split['folds']} folds, counted from 0"
        yield Problem(f"data.split.fold={split['fold']}", why, key="data.split.fold")


def _selection(config: Mapping[str, Any]) -> Iterator[Problem]:
    """Without tuning cases there is nothing to stop, to select or to lower the rate by."""
    tuning = ((config.get("data") or {}).get("split") or {}).get("tuning")
    if tuning != 0:
        return
    why = "needs tuning cases, and data.split.tuning is 0"
    if (config.get("early_stopping") or {}).get("patience") is not None:
        yield Problem("early_stopping.patience", why, key="early_stopping.patience")
    if config.get("select") == "best":
        yield Problem("select=best", why, "Set select=last.", "select")
    if _plateau(config):
        yield Problem("scheduler=plateau", why, "Choose another schedule.", "scheduler")


def _validation(config: Mapping[str, Any]) -> Iterator[Problem]:
    """The plateau lowers the rate by the loss of the epoch that has just ended: it cannot wait for it."""
    apart = (config.get("validation") or {}).get("where") == "apart"
    if apart and _plateau(config):
        why = "the plateau needs each validation at the end of its epoch, and scores from apart come later"
        yield Problem("scheduler=plateau", why, "Set validation.where=here, or choose another schedule.", "scheduler")


def _changing_loss(config: Mapping[str, Any]) -> Iterator[Problem]:
    """The plateau compares val/loss between epochs: it must mean the same in all of them."""
    changing = list(_changing_weights(config.get("loss") or {}, "loss"))
    if changing and _plateau(config):
        why = f"the plateau compares val/loss between epochs, and {', '.join(changing)} changes what val/loss is"
        off = " ".join(f"{key}=null" for key in changing)
        yield Problem("scheduler=plateau", why, f"Choose another scheduler, or set {off}.", "scheduler")


def _changing_weights(loss: Mapping[str, Any], where: str) -> Iterator[str]:
    """Keys of the schedules that give a term different weights, in sums within the sum too."""
    schedule, terms = loss.get("schedule"), loss.get("terms")
    of_terms = schedule.values() if isinstance(schedule, Mapping) else ()
    weights = [list(points.values()) for points in of_terms if isinstance(points, Mapping)]
    if any(weight != points[0] for points in weights for weight in points):
        yield f"{where}.schedule"
    for name, term in terms.items() if isinstance(terms, Mapping) else ():
        if isinstance(term, Mapping):
            yield from _changing_weights(term, f"{where}.terms.{name}")


def _plateau(config: Mapping[str, Any]) -> bool:
    return str((config.get("scheduler") or {}).get("_target_", "")).endswith(".plateau")


def _length(trainer: Mapping[str, Any]) -> Iterator[Problem]:
    """A run has one length, told in one way."""
    budget, steps = trainer.get("budget"), trainer.get("max_steps")
    if budget is not None:
        try:
            seconds(str(budget))
        except ValueError as error:
            yield Problem(f"trainer.budget={budget}", str(error), key="trainer.budget")
    told = [key for key in ("budget", "max_steps") if trainer.get(key) is not None]
    told += [key for key in ("max_epochs", "steps_per_epoch") if trainer.get(key) is not None]
    if (budget is not None or steps is not None) and len(told) > 1:
        names = ", ".join(f"trainer.{key}" for key in told)
        yield Problem(
            names, "each gives the length of the run", f"Set all but one to null: {names}.", f"trainer.{told[0]}"
        )
    if budget is not None and trainer.get("devices", 1) != 1:
        why = "the steps of a budget are timed by one process before the run begins"
        yield Problem("trainer.budget", why, "Set trainer.devices=1, or trainer.max_steps instead.", "trainer.budget")


def _plan(plan: Mapping[str, Any]) -> Iterator[Problem]:
    for names in (("features", "strides", "kernel_sizes", "blocks_per_stage"), ("patch_size", "spacing")):
        lengths = {name: len(plan[name]) for name in names if plan.get(name) is not None}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{name} has {length}" for name, length in lengths.items())
            unit = "stage" if "features" in names else "axis"
            yield Problem("plan", f"one entry each {unit} is needed: {found}", key=f"plan.{next(iter(lengths))}")


def _scheduler(scheduler: Mapping[str, Any]) -> Iterator[Problem]:
    low, high = scheduler.get("base_lr"), scheduler.get("max_lr")
    if low is not None and high is not None and low >= high:
        yield Problem(f"scheduler.base_lr={low:g}", f"must be below scheduler.max_lr={high:g}", key="scheduler.base_lr")
