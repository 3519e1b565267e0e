"""Further rows of an evaluation: the same cases by the same weights, predicted in another way.

The plain prediction is the one that checkpoints are selected by: it always comes first, and no other stands in its
place. Another one is one more entry of `variants_of`; it has a folder of its own below the plain evaluation, which is a
whole evaluation too, and is compared with the plain one case by case.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segkit.errors import UsageError
from segkit.evaluation import CaseResult, EvaluationSettings
from segkit.evaluation.case import count_case
from segkit.evaluation.comparison import Comparison, compare
from segkit.evaluation.comparison_files import COMPARISON, write_comparison
from segkit.evaluation.stored_table import read_table
from segkit.metrics.uncertainty import MIN_GROUPS
from segkit.runs.postprocessing import StoredPostProcessing
from segkit.types import PreparedCase
from segkit.workflows.evaluate_postprocessing import chosen_on, rules_to_try
from segkit.workflows.evaluation_tables import Numbers, write_cases, write_numbers
from segkit.workflows.members import Members
from segkit.workflows.provenance import SEEN

PLAIN = "plain"
MIRRORED = "mirrored"
POSTPROCESSED = "postprocessed"
VARIANTS = (MIRRORED, POSTPROCESSED)
_METRIC = "dice"


@dataclass(frozen=True)
class Variant:
    """A way to predict a case.

    Args:
        name: `PLAIN`, or one of `VARIANTS`: its folder, and what its line begins with.
        settings: How its cases are counted, and what its tables say of the way they were predicted.
        evaluate: Its result of a case, from the case as the plan of each run wants it and from the plain result.
        facts: What its summary.json says beside what the plain one does.
        seen: Cases that chose what is done, though no model has seen them.
    """

    name: str
    settings: EvaluationSettings
    evaluate: Callable[[Sequence[PreparedCase], CaseResult], CaseResult]
    facts: Mapping[str, Any] = field(default_factory=dict)
    seen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """The numbers of the plain prediction, or of a variant.

    Args:
        name: `PLAIN`, or the variant's.
        numbers: Of all cases.
        facts: What its summary.json says beside what the plain one does.
        seen: See `Variant`; they mark the row, and not the plain one.
    """

    name: str
    numbers: Numbers
    facts: Mapping[str, Any] = field(default_factory=dict)
    seen: tuple[str, ...] = ()


def variants_of(config: Mapping[str, Any], members: Members, hashes: Mapping[str, str]) -> tuple[Variant, ...]:
    """The plain prediction, then the variants that are asked for, in the order of their rows.

    There is no row of mirrored and post-processed masks: rules are fitted for the plain prediction.

    Args:
        config: Keys of configs/evaluate.yaml.
        members: What is scored.
        hashes: Content hash of the images of each case.

    Raises:
        UsageError: Mirroring that would be the plain prediction again; rules that are not there, or are of others.
        DataError: Rules that were fitted on the cases.
    """
    found = [Variant(PLAIN, members.first.settings, lambda _, result: result)]
    if config.get("mirror"):
        found.append(_mirrored(members))
    if (stored := rules_to_try(config, members)) is not None:
        found.append(_postprocessed(members, stored, seen=chosen_on(stored, hashes, config)))
    return tuple(found)


def row_folder(output: Path, name: str) -> Path:
    """Where the tables of a row lie: the plain ones in the evaluation's own folder, those of a variant below it."""
    return output if name == PLAIN else output / name


def forget_comparisons(output: Path) -> None:
    """Take away what was compared with the plain evaluation in a folder that is about to be replaced.

    The evaluations of its variants stay: each says itself what it is of.
    """
    for name in VARIANTS:
        (row_folder(output, name) / COMPARISON).unlink(missing_ok=True)


def write_variant(output: Path, row: Row, *, facts: Mapping[str, Any]) -> str:
    """Write the evaluation of a variant, and its comparison with the plain one.

    Args:
        output: Folder of the plain evaluation, which has been written.
        row: The variant's.
        facts: What stands before the numbers of the plain one.

    Returns:
        The row for a terminal: mean Dice, score, and the paired difference of the mean Dice with its interval.
    """
    mark = {"label": SEEN, "seen_cases": sorted({*facts["seen_cases"], *row.seen})} if row.seen else {}
    facts = {**facts, **row.facts, **mark}
    folder, note = row_folder(output, row.name), SEEN if facts["label"] == SEEN else ""
    write_cases(folder, row.numbers, note=note)
    write_numbers(folder, row.numbers, facts=facts)
    found = compare([read_table(output)], [read_table(folder)], [_METRIC], label=facts["label"])
    write_comparison(folder, found, note=note)
    return _line(row, found)


def _mirrored(members: Members) -> Variant:
    """Test-time augmentation: the mean over all flips along the axes that were flipped in training."""
    axes = [run.plan.flip_axes for run in members.runs]
    if not any(axes):
        raise UsageError(
            "there is nothing to mirror",
            where="mirror=true",
            why=f"no axis was flipped in the training of {', '.join(run.directory.name for run in members.runs)}",
            mend="mirror=false",
        )
    flipped, settings = members.mirrored(), replace(members.first.settings, mirror_axes=axes[0])
    return Variant(
        MIRRORED,
        settings,
        lambda prepared, _: flipped.result(prepared, settings),
        facts={"variant": MIRRORED, "mirror_axes": [list(of) for of in axes]},
    )


def _postprocessed(members: Members, stored: StoredPostProcessing, *, seen: tuple[str, ...]) -> Variant:
    """The plain masks, changed by rules."""
    labels, settings = members.first.plan.labels, members.first.settings

    def evaluate(prepared: Sequence[PreparedCase], plain: CaseResult) -> CaseResult:
        case = prepared[0]
        assert plain.prediction is not None
        changed = stored.rules.apply(plain.prediction, spacing=case.geometry.native_spacing, labels=labels)
        rows = count_case(changed, case, num_classes=labels.num_classes, settings=settings)
        return replace(plain, rows=rows, prediction=changed)

    facts = {
        "variant": POSTPROCESSED,
        "postprocessing": stored.rules.to_json(),
        "postprocessing_file": str(stored.path.absolute()),
    }
    return Variant(POSTPROCESSED, settings, evaluate, facts, seen)


def _line(row: Row, found: Comparison) -> str:
    """`mirrored: dice 0.871, score 0.843; dice +0.004 [+0.001, +0.007] by person, against the plain prediction`."""
    summary, interval = row.numbers.summary, found.rows[-1].difference.interval
    if interval.n == 0:
        return f"{row.name}: no case has a {_METRIC}"
    limits = f" [{interval.low:+.4f}, {interval.high:+.4f}] by person" if interval.published else ""
    few = "" if interval.published else f" (no interval below {MIN_GROUPS} groups)"
    means = f"{_METRIC} {summary.mean[_METRIC].mean:.4f}, score {summary.score:.4f}"
    against = f"{_METRIC} {interval.mean:+.4f}{limits}{few}, against the plain prediction"
    mark = f"; {SEEN}: the rules were fitted on {len(row.seen)} of {summary.n_cases}" if row.seen else ""
    return f"{row.name}: {means}; {against}{mark}"
