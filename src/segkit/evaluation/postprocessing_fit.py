"""Post-processing fitted on cases, and what it is worth: on these cases, and on people that were left out.

The gain on the cases that chose the rules is called optimistic: the best of several is partly luck. The other one is
cross-validated: the rules are chosen anew without a tenth of the people (each of them where there are fewer than ten)
and applied to these. It is the gain of choosing in this way; the rules of all people together are a little better.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from segkit.errors import DataError
from segkit.evaluation.postprocessing_choice import (
    ALL_CLASSES,
    LEVEL,
    MIN_CASES,
    QUANTILES,
    Outcome,
    Step,
    Trials,
    choose_rules,
    folds_of,
)
from segkit.evaluation.prediction_regions import Regions, joined
from segkit.inference.postprocessing import PostProcessing
from segkit.metrics.uncertainty import MIN_GROUPS, Interval, finite_or_none, mean_interval
from segkit.ops.connected_components import Connectivity
from segkit.types import Labels

FOLDS = 10
RULES = {
    "family": "by class: the largest component alone, a smallest size just above quantiles "
    f"{', '.join(f'{q:g}' for q in QUANTILES)} of the components that share no voxel with their class, filled holes; "
    "of instances only sizes; then the largest component of all classes together",
    "kept": "the step with the largest mean paired gain in Dice, else the size that ends most false alarms, if the "
    f"gain exceeds the t quantile at {LEVEL:g} times its standard error by group (person); nothing else may lose more "
    "than one: the Dice of no other class, nor, for false alarms, its own and the share of cases in which it is found",
    "optimistic": "measured on the cases that chose the rules",
    "cross_validated": f"rules chosen without a fold of people (at most {FOLDS}) and applied to it",
    "undefined": "a case without the class is in no mean of Dice; what is predicted there is a false alarm",
    "interval": f"95 % t interval by group (person); none below {MIN_GROUPS} groups",
}


@dataclass(frozen=True)
class ClassFit:
    """One foreground class.

    Args:
        name: Class name.
        rule: What is done to it, for people.
        before: Dice as predicted.
        optimistic: Mean paired gain in Dice by all rules on the cases that chose them.
        cross_validated: The same of people who were left out.
        healthy: Cases without the class.
        alarms: Of these, where it was predicted: before, after, and after by rules that were chosen without them.
        missed: Cases in which it had been found and is not any more.
        kept_in_folds: Folds whose rules do something to it, of all.
        steps: What was tried last: the steps that were kept, and the best that was not.
        left_out: Why nothing was tried; "" where it was.
    """

    name: str
    rule: str
    before: Interval
    optimistic: Interval
    cross_validated: Interval
    healthy: int
    alarms: tuple[int, int, int]
    missed: int
    kept_in_folds: tuple[int, int]
    steps: tuple[Step, ...]
    left_out: str

    def to_dict(self) -> dict[str, Any]:
        """JSON form; what is undefined is null."""
        before, after, apart = self.alarms
        return {
            "rule": self.rule,
            "dice_before": self.before.to_dict(),
            "gain_optimistic": self.optimistic.to_dict(),
            "gain_cross_validated": self.cross_validated.to_dict(),
            "false_alarms": {"cases": self.healthy, "before": before, "after": after, "cross_validated": apart},
            "no_longer_found": self.missed,
            "kept_in_folds": list(self.kept_in_folds),
            "steps": _steps(self.steps),
            "left_out": self.left_out,
        }


@dataclass(frozen=True)
class PostProcessingFit:
    """What cases say of post-processing.

    Args:
        rules: What is done.
        classes: One a foreground class.
        together: What was tried of all classes together.
        n_cases: Cases that were looked at.
        n_groups: Groups (people) they belong to.
        unit: Of sizes.
    """

    rules: PostProcessing
    classes: tuple[ClassFit, ...]
    together: tuple[Step, ...]
    n_cases: int
    n_groups: int
    unit: str

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "n_cases": self.n_cases,
            "n_groups": self.n_groups,
            "unit": self.unit,
            "classes": {one.name: one.to_dict() for one in self.classes},
            "all_classes": _steps(self.together),
            "rules": RULES,
        }

    def table(self) -> Iterator[str]:
        """Lines for a terminal."""
        width = max(len("class"), *(len(one.name) for one in self.classes))
        heading = f"{'Dice before':<22}{'gain (optimistic)':<28}{'gain, people left out':<28}"
        yield f"{'class':<{width}}  {heading}{'false alarms':<16}n"
        for one in self.classes:
            n, groups = one.before.n, one.before.n_groups
            cells = f"{_cell(one.before, '.3f'):<22}{_cell(one.optimistic):<28}{_cell(one.cross_validated):<28}"
            alarms = f"{one.alarms[0]} -> {one.alarms[1]} of {one.healthy}" if one.healthy else "no such case"
            yield f"{one.name:<{width}}  {cells}{alarms:<16}{n}" + ("" if n == groups else f" ({groups} groups)")
        for one in self.classes:
            yield from self._of_class(one)
        for step in self.together:
            yield f"{ALL_CLASSES}: {'kept' if step.kept else 'not kept'}: {step.text()}"

    def _of_class(self, one: ClassFit) -> Iterator[str]:
        if one.left_out:
            yield f"{one.name}: nothing is tried: {one.left_out}"
            return
        yield f"{one.name}: {one.rule}" + ("" if one.steps else "; nothing that was tried changes anything")
        for step in one.steps:
            yield f"  {'kept' if step.kept else 'not kept'}: {step.text()}"
        if one.alarms[0] != one.alarms[1]:
            yield f"  false alarms by rules of other people: {one.alarms[0]} -> {one.alarms[2]} of {one.healthy}"
        if one.missed:
            yield f"  no longer found in {one.missed} cases"
        if any(step.kept for step in one.steps):
            kept, folds = one.kept_in_folds
            yield f"  the class has a rule in {kept} of {folds} folds of people"


def fit_rules(
    cases: Sequence[Regions], labels: Labels, *, connectivity: Connectivity = "full", unit: str = "mm^3"
) -> PostProcessingFit:
    """Choose the rules, and say what they are worth.

    Args:
        cases: Regions of each case, none of which the model was trained on.
        labels: Class names.
        connectivity: What joins voxels of a component.
        unit: Of sizes: mm^3, mm^2 or pixels.

    Raises:
        DataError: Fewer than `MIN_CASES` cases or `MIN_GROUPS` groups.
    """
    _require_enough(cases)
    trials = Trials(joined(cases), labels, unit=unit)
    start = PostProcessing(connectivity=connectivity)
    everybody = np.ones(len(trials.groups), dtype=bool)
    rules, steps = choose_rules(trials, everybody, start=start)
    folds = folds_of(trials.groups.tolist(), FOLDS)
    by_fold = [choose_rules(trials, ~left_out, start=start)[0] for left_out in folds]
    apart = np.zeros(len(everybody), dtype=np.int64)
    for number, left_out in enumerate(folds):
        apart[left_out] = number
    before, after = trials.outcome(start), trials.outcome(rules)
    crossed = _of_folds([trials.outcome(one) for one in by_fold], apart)
    return PostProcessingFit(
        rules=rules,
        classes=tuple(
            _class_fit(trials, place, rules, steps, by_fold, (before, after, crossed))
            for place in range(len(labels.foreground))
        ),
        together=tuple(step for step in steps if step.target == ALL_CLASSES),
        n_cases=len(everybody),
        n_groups=len(set(trials.groups.tolist())),
        unit=unit,
    )


def _require_enough(cases: Sequence[Regions]) -> None:
    groups = {case.group for one in cases for case in one.cases}
    if len(cases) < MIN_CASES or len(groups) < MIN_GROUPS:
        raise DataError(
            f"post-processing is fitted on {MIN_CASES} cases of {MIN_GROUPS} people (groups) or more",
            where="postprocess=fit",
            why=f"there are {len(cases)} cases of {len(groups)}",
            mend="train with a larger data.split.tuning; or fit on the folds of a cross-validation, which have every "
            "case: python -m segkit.evaluate run=<their folder> subset=test postprocess=fit",
        )


def _of_folds(outcomes: Sequence[Outcome], fold: Int[np.ndarray, " N"]) -> Outcome:
    """Of each case what the rules of its own fold come to."""
    cases = np.arange(len(fold))

    def own(name: str) -> Float[np.ndarray, "N F"]:
        chosen: Float[np.ndarray, "N F"] = np.stack([getattr(one, name) for one in outcomes])[fold, cases]
        return chosen

    return Outcome(own("dice"), own("found"), own("alarm"), own("predicted"))


def _class_fit(
    trials: Trials,
    place: int,
    rules: PostProcessing,
    steps: Sequence[Step],
    by_fold: Sequence[PostProcessing],
    outcomes: tuple[Outcome, Outcome, Outcome],
) -> ClassFit:
    before, after, crossed = outcomes
    name, groups = trials.labels.foreground[place], trials.groups.tolist()
    rule = rules.rule(name)
    scored = mean_interval(before.dice[:, place], groups, bounds=(0.0, 1.0))
    short = f"{scored.n} cases of {scored.n_groups} groups have it; {MIN_CASES} of {MIN_GROUPS} are needed"
    first, second, third = (int(np.nansum(one.alarm[:, place])) for one in outcomes)
    return ClassFit(
        name=name,
        rule=rule.text(trials.unit),
        before=scored,
        optimistic=mean_interval((after.dice - before.dice)[:, place], groups),
        cross_validated=mean_interval((crossed.dice - before.dice)[:, place], groups),
        healthy=int(np.isfinite(before.alarm[:, place]).sum()),
        alarms=(first, second, third),
        missed=int(np.nansum((before.found - after.found)[:, place])),
        kept_in_folds=(sum(one.rule(name).changes for one in by_fold), len(by_fold)),
        steps=tuple(step for step in steps if step.target == name),
        left_out="" if trials.enough(before.dice, place) else short,
    )


def _steps(steps: Sequence[Step]) -> list[dict[str, Any]]:
    return [
        {
            "change": step.change,
            "measure": step.measure,
            "gain": step.gain.mean,
            "standard_error": finite_or_none(step.gain.standard_error),
            "standard_errors_needed": finite_or_none(step.bar),
            "n": step.gain.n,
            "n_groups": step.gain.n_groups,
            "false_alarms_ended": step.alarms,
            "obstacle": step.obstacle,
            "kept": step.kept,
        }
        for step in steps
    ]


def _cell(interval: Interval, digits: str = "+.4f") -> str:
    if interval.n == 0:
        return "n/a"
    limits = f" [{interval.low:{digits}}, {interval.high:{digits}}]" if interval.published else ""
    return f"{interval.mean:{digits}}{limits}"
