"""Which post-processing cases speak for: a small family of rules, tried class by class, and what it takes to be kept.

Of each class, in the order of the classes, one step after the other is added to its rule: the largest component alone
(`keep`), a smallest size (`min_mm3`), or filled holes (`holes`). The sizes tried lie just above quantiles of the false
components, those that share no voxel with the reference of their class. A step is judged by one of two measures,

    Dice            of the cases that have the class: the mean paired gain
    false alarms    of the cases that do not: the share in which nothing is left of what had been predicted

By Dice the step with the largest gain is taken, if that gain exceeds t_{G-1}(0.95) standard errors, which count people:
the one-sided 95 % interval lies above 0. Where it does not, the size that ends most false alarms is taken by the same
rule. In the end the largest component of all classes together is tried by the mean Dice over the classes.

By nothing a step may lose more than a standard error: neither the Dice of any other class, nor, where it wins by false
alarms, the Dice of its own and the share of cases in which it is found at all. So false alarms count, though a case
without the class has no Dice, and to remove everything does not pay, since it loses the cases that have the class.

One standard error in place of t, and components that are right or wrong by the toss of a coin come to a rule in one
data set of three; t leaves 5 to 11 % (150 data sets of 12 to 40 cases each). Dividing the 5 % by the number of steps
that were tried leaves 1 to 2 %, and misses most rare false islands: the sizes tried are nearly the same step.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import stdtrit

from segkit.evaluation.prediction_regions import Regions, classes_after
from segkit.inference.postprocessing import ClassRule, PostProcessing
from segkit.metrics.overlap import dice
from segkit.metrics.uncertainty import MIN_GROUPS, ClusteredMean, clustered_mean
from segkit.ops.connected_components import Connectivity
from segkit.types import Labels

Measure: TypeAlias = Literal["Dice", "false alarms"]

LEVEL = 0.95
"""Of the one-sided interval of a gain, which must lie above 0."""
MIN_CASES = 10
"""Below this many cases, or `MIN_GROUPS` groups, no rule of a class is tried."""
QUANTILES = (0.5, 0.75, 0.9, 0.95, 1.0)
ALL_CLASSES = "all classes"

_ROUNDING = 1 + 1e-9


@dataclass(frozen=True)
class Outcome:
    """What a set of rules comes to, by case and foreground class; NaN where it is not applicable.

    Args:
        dice: Where the class is in the reference.
        found: There, whether a voxel of it was found.
        alarm: Elsewhere, whether it was predicted all the same.
        predicted: Voxels.
    """

    dice: Float[np.ndarray, "N F"]
    found: Float[np.ndarray, "N F"]
    alarm: Float[np.ndarray, "N F"]
    predicted: Float[np.ndarray, "N F"]


@dataclass(frozen=True)
class Step:
    """One change of the rules, and what became of it.

    Args:
        target: Class name, or all classes.
        rules: All rules with it.
        change: What is new, for people.
        measure: By which it was judged.
        gain: Mean gain by it.
        bar: Standard errors that the gain must exceed.
        alarms: False alarms that it ends.
        obstacle: What it would lose; "" where nothing.
    """

    target: str
    rules: PostProcessing
    change: str
    measure: Measure
    gain: ClusteredMean
    bar: float
    alarms: int
    obstacle: str

    @property
    def kept(self) -> bool:
        """Whether it is part of the rules from here on."""
        error = self.gain.standard_error
        return not self.obstacle and self.gain.mean > max(self.bar * error, 0.0) and not math.isnan(error)

    def text(self) -> str:
        """For people: `largest component kept: Dice +0.0123, 4.1 standard errors, 1.7 needed`."""
        because = reason_text(self.measure, self.gain.mean, self.gain.standard_error, self.bar, self.obstacle)
        return f"{self.change}: {because}"


def reason_text(measure: Measure, gain: float, error: float, bar: float, obstacle: str) -> str:
    """Why a step was kept or not, for people: `Dice +0.0123, 4.1 standard errors, 1.7 needed; b loses Dice`.

    Args:
        measure: By which it was judged.
        gain: Mean gain by it.
        error: Standard error of the gain; NaN where there is none.
        bar: Standard errors that the gain must exceed.
        obstacle: What it would lose; "" where nothing.
    """
    said = "Dice" if measure == "Dice" else "share without a false alarm"
    spread = f"{gain / error:.1f} standard errors, {bar:.1f} needed" if error > 0 else "no spread"
    return f"{said} {gain:+.4f}, {spread}" + (f"; {obstacle}" if obstacle else "")


class Trials:
    """Tries rules on the regions of many cases; what was tried once is remembered.

    Args:
        regions: Of all cases.
        labels: Class names; of instances, only sizes are tried.
        unit: Of sizes, for people.
    """

    def __init__(self, regions: Regions, labels: Labels, *, unit: str = "mm^3") -> None:
        self.regions, self.labels, self.unit = regions, labels, unit
        self.groups = np.array([case.group for case in regions.cases], dtype=str)
        classes = np.arange(1, labels.num_classes)
        self._applicable = np.array(
            [[case.annotated is None or k in case.annotated for k in classes] for case in regions.cases], dtype=bool
        ).reshape(len(regions.cases), len(classes))
        self._outcomes: dict[PostProcessing, Outcome] = {}

    def outcome(self, rules: PostProcessing) -> Outcome:
        """What these rules come to in each case."""
        if rules not in self._outcomes:
            label = classes_after(self.regions, rules, self.labels.names)
            tp, fp, fn = (counts[:, 1:] for counts in self.regions.confusion(label))
            there = tp + fn > 0
            self._outcomes[rules] = Outcome(
                dice=np.where(self._applicable, dice(tp, fp, fn), np.nan),
                found=np.where(self._applicable & there, tp > 0, np.nan),
                alarm=np.where(self._applicable & ~there, fp > 0, np.nan),
                predicted=tp + fp,
            )
        return self._outcomes[rules]

    def mean(self, values: Float[np.ndarray, "N K"], among: Bool[np.ndarray, " N"]) -> ClusteredMean:
        """Mean over some of the cases, with its standard error by group."""
        return clustered_mean(values[among], self.groups[among].tolist())

    def enough(self, values: Float[np.ndarray, "N F"], place: int) -> bool:
        """Whether there are cases and groups enough in which this is applicable to a class."""
        found = self.mean(values[:, [place]], np.ones(len(values), dtype=bool))
        return found.n >= MIN_CASES and found.n_groups >= MIN_GROUPS

    def sizes(self, place: int, among: Bool[np.ndarray, " N"], connectivity: Connectivity) -> list[float]:
        """Smallest sizes worth a trial, mm^3: just above quantiles of the false components of a class."""
        regions, index = self.regions, place + 1
        mine = (regions.label == index) & (among & self._applicable[:, place])[regions.case]
        member = regions.components[connectivity]
        known, hit = (
            np.bincount(member[mine], weights=values[mine], minlength=len(regions.label))
            for values in (regions.counts.sum(axis=1), regions.counts[:, index])
        )
        voxel = np.array([math.prod(case.spacing) for case in regions.cases])[regions.case]
        size = np.bincount(member[mine], weights=(regions.voxels * voxel)[mine], minlength=len(regions.label))
        false = size[(known > 0) & (hit == 0)]
        if not len(false):
            return []
        return sorted({_above(float(q)) for q in np.quantile(false, QUANTILES, method="higher")})


def choose_rules(
    trials: Trials, among: Bool[np.ndarray, " N"], *, start: PostProcessing | None = None
) -> tuple[PostProcessing, list[Step]]:
    """The rules that these cases speak for, and of each class the steps that were kept and the best that was not.

    Args:
        trials: Of all cases; a class with too few of them has no rule.
        among: Those that are looked at.
        start: Rules to begin with.
    """
    rules = start or PostProcessing()
    before, steps = trials.outcome(rules), list[Step]()
    ready = [place for place in range(trials.labels.num_classes - 1) if trials.enough(before.dice, place)]
    for place in ready:
        while (step := _best_of_class(trials, rules, place, among)) is not None:
            steps.append(step)
            if not step.kept:
                break
            rules = step.rules
    several = trials.labels.num_classes > 2 and len(ready) == trials.labels.num_classes - 1
    if several and trials.labels.kind == "semantic" and rules.foreground == "all":
        together = replace(rules, foreground="largest")
        if _changes(trials, rules, together, among):
            step = _of_all_classes(trials, rules, together, among)
            steps.append(step)
            rules = together if step.kept else rules
    return rules, steps


def _best_of_class(trials: Trials, rules: PostProcessing, place: int, among: Bool[np.ndarray, " N"]) -> Step | None:
    """The best next step for a class; None where nothing that may be tried changes anything."""
    own = rules.rule(trials.labels.foreground[place])
    tried = [
        (rules.with_rule(rule), rule)
        for rule in _next_rules(own, trials.sizes(place, among, rules.connectivity), trials.labels)
        if _changes(trials, rules, rules.with_rule(rule), among)
    ]
    best = _best(_step(trials, rules, new, (own, rule), place, among, "Dice") for new, rule in tried)
    if best is None or best.kept or not trials.enough(trials.outcome(rules).alarm, place):
        return best
    sized = [(new, rule) for new, rule in tried if rule.min_mm3 > own.min_mm3]
    quiet = _best(_step(trials, rules, new, (own, rule), place, among, "false alarms") for new, rule in sized)
    return quiet if quiet is not None and quiet.kept else best


def _best(steps: Iterable[Step]) -> Step | None:
    """The largest gain, the first of equal ones; a step that loses something only where all do."""
    return max(steps, key=lambda step: (not step.obstacle, step.gain.mean), default=None)


def _next_rules(own: ClassRule, sizes: Iterable[float], labels: Labels) -> list[ClassRule]:
    """The rules that have one thing more."""
    sized = [replace(own, min_mm3=size) for size in sizes if size > own.min_mm3]
    if labels.kind == "instances":
        return sized
    alone = [replace(own, keep="largest")] if own.keep == "all" else []
    filled = [replace(own, holes="fill")] if own.holes == "leave" else []
    return [*alone, *sized, *filled]


def _step(
    trials: Trials,
    old: PostProcessing,
    new: PostProcessing,
    change: tuple[ClassRule, ClassRule],
    place: int,
    among: Bool[np.ndarray, " N"],
    measure: Measure,
) -> Step:
    before, after = trials.outcome(old), trials.outcome(new)
    column = [place]
    ended = before.alarm - after.alarm
    gain = trials.mean((after.dice - before.dice if measure == "Dice" else ended)[:, column], among)
    obstacle = _loss(trials, before, after, among, but=place if measure == "Dice" else None)
    if measure == "false alarms" and _loses(trials.mean((after.found - before.found)[:, column], among)):
        obstacle = obstacle or "the class is missed in more cases"
    return Step(
        target=trials.labels.foreground[place],
        rules=new,
        change=_difference(*change, trials.unit),
        measure=measure,
        gain=gain,
        bar=_bar(gain.n_groups),
        alarms=int(np.nansum(ended[among, place])),
        obstacle=obstacle,
    )


def _of_all_classes(trials: Trials, old: PostProcessing, new: PostProcessing, among: Bool[np.ndarray, " N"]) -> Step:
    before, after = trials.outcome(old), trials.outcome(new)
    gain = trials.mean(after.dice - before.dice, among)
    return Step(
        target=ALL_CLASSES,
        rules=new,
        change="largest component of all classes together kept",
        measure="Dice",
        gain=gain,
        bar=_bar(gain.n_groups),
        alarms=int(np.nansum((before.alarm - after.alarm)[among])),
        obstacle=_loss(trials, before, after, among),
    )


def _loss(
    trials: Trials, before: Outcome, after: Outcome, among: Bool[np.ndarray, " N"], *, but: int | None = None
) -> str:
    """The first class whose Dice falls by more than a standard error."""
    for place, name in enumerate(trials.labels.foreground):
        if place != but and _loses(trials.mean((after.dice - before.dice)[:, [place]], among)):
            return f"{name} loses Dice"
    return ""


def _loses(change: ClusteredMean) -> bool:
    """Whether a mean change is a loss of more than a standard error; one case alone loses just one."""
    return change.mean < 0 and not -change.mean <= change.standard_error * _ROUNDING


def _changes(trials: Trials, old: PostProcessing, new: PostProcessing, among: Bool[np.ndarray, " N"]) -> bool:
    """Whether it makes a difference to any of the cases, be it good or bad: what does not is no trial."""
    a, b = trials.outcome(old).predicted, trials.outcome(new).predicted
    return bool((a[among] != b[among]).any())


def _bar(n_groups: int) -> float:
    """Standard errors that a gain must exceed."""
    return math.inf if n_groups < 2 else float(stdtrit(n_groups - 1, LEVEL))


def _difference(old: ClassRule, new: ClassRule, unit: str) -> str:
    """What the new rule has that the old one had not."""
    added = ClassRule(
        new.name,
        min_mm3=new.min_mm3 if new.min_mm3 > old.min_mm3 else 0.0,
        keep=new.keep if new.keep != old.keep else "all",
        holes=new.holes if new.holes != old.holes else "leave",
    )
    return added.text(unit)


def _above(size: float) -> float:
    """The smallest number of two digits that is larger by more than `voxels_of_volume` takes for rounding."""
    size *= 1 + 2e-6
    unit = 10.0 ** (math.floor(math.log10(size)) - 1)
    return float(f"{(math.floor(size / unit) + 1) * unit:.2g}")


def folds_of(groups: Sequence[str], count: int) -> list[Bool[np.ndarray, " N"]]:
    """Which cases are left out of each fold: people dealt in turn, by name.

    Args:
        groups: Group (person) of each case.
        count: Folds; as many as there are groups where these are fewer.
    """
    names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    folds = min(count, len(names))
    return [member % folds == fold for fold in range(folds)]
