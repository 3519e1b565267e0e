"""One run, or several as one, on the cases of a role: who they are, whether they may be scored, the tables."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkit.data.layouts import discover
from segkit.data.sample import sample_root
from segkit.data.splits import ROLES
from segkit.data.store import Store
from segkit.errors import DataError
from segkit.evaluation.prediction_regions import Regions
from segkit.runs.leftovers import sweep_abandoned
from segkit.types import Case
from segkit.workflows.evaluate_cases import draw_worst, mask_of, score_cases
from segkit.workflows.evaluate_postprocessing import FIT, asked_for, require_unseen
from segkit.workflows.evaluate_variants import Row, forget_comparisons, variants_of, write_variant
from segkit.workflows.evaluation_tables import Numbers, detail_settings, numbers_of, write_cases, write_numbers
from segkit.workflows.loading import TrainedRun
from segkit.workflows.members import Members
from segkit.workflows.provenance import SEEN, Model, Sighting, Subset, label_of, seen_by


@dataclass(frozen=True)
class Evaluated:
    """One run, or several as one, on the cases of one role.

    Args:
        members: What was scored.
        rows: What was counted and measured: the plain prediction first, then the variants.
        facts: What stands before the numbers in summary.json.
        regions: Of the plain prediction, by case, where rules are to be fitted on them; else none.
    """

    members: Members
    rows: tuple[Row, ...]
    facts: dict[str, Any]
    regions: tuple[Regions, ...] = ()

    @property
    def trained(self) -> TrainedRun:
        """The run, or of several the first."""
        return self.members.first

    @property
    def numbers(self) -> Numbers:
        """Those of the plain prediction."""
        return self.rows[0].numbers


def evaluate_subset(config: Mapping[str, Any], members: Members, *, output: Path) -> Evaluated:
    """Score the cases of a role.

    Args:
        config: Keys of configs/evaluate.yaml.
        members: What is scored.
        output: Folder for the tables.

    Returns:
        The numbers, which are also printed and written.

    Raises:
        UsageError: Cases are asked for that a model has seen; a variant that would be nothing new; no such rules.
        DataError: Cases are missing, have no label, or a model, or the rules, have seen them under whatever name.
    """
    subset: Subset = config["subset"]
    first, models, labels = members.first, members.models, members.first.plan.labels
    cache = config.get("paths", {}).get("cache")
    store = Store(first.prepared_cases if cache is None else Path(cache).expanduser().absolute())
    cases = cases_of(first, models, subset, root=config.get("data", {}).get("root"))
    hashes = {case.case_id: store.content_hash(case.images) for case in cases}
    seen = seen_by(models, hashes)
    label = label_of(subset, seen, allow_seen=config.get("allow_seen", False))
    require_unseen(config, label, first.directory.path)
    variants = variants_of(config, members, hashes)
    sweep_abandoned(output)
    started = time.perf_counter()
    detail = detail_settings(config, first.settings.lesion, labels)
    masks = output if config.get("save_predictions") else None
    scored = score_cases(
        members,
        cases,
        store,
        variants=variants,
        detail=detail,
        masks=masks,
        overlays=config["overlays"],
        regions=asked_for(config) == FIT,
    )
    rows = [
        Row(
            variant.name,
            numbers_of(
                counted.results,
                counted.details,
                labels,
                settings=variant.settings,
                detail=detail,
                unit=first.plan.unit,
                dimensions=first.plan.dimensions,
                files={case.case_id: (_label(case), mask_of(output, variant.name, case)) for case in cases},
            ),
            variant.facts,
            variant.seen,
        )
        for variant, counted in zip(variants, scored.counted, strict=True)
    ]
    done = Evaluated(members, tuple(rows), facts_of(members, subset, label, seen), tuple(scored.regions))
    forget_comparisons(output)
    write_cases(output, done.numbers, note=label if label == SEEN else "")
    draw_worst(
        output / "overlays", scored.worst, labels, label=label, prepared=lambda case: store.get(case, first.plan)
    )
    write_numbers(output, done.numbers, facts=done.facts)
    lines = [*done.numbers.lines(), *(write_variant(output, row, facts=done.facts) for row in done.rows[1:])]
    _print(done, lines)
    print(f"{output}  ({time.perf_counter() - started:.1f} s)")
    return done


def cases_of(first: TrainedRun, models: Sequence[Model], subset: Subset, *, root: str | None) -> tuple[Case, ...]:
    """The labelled cases that have the role in any of the models, where the data lies now.

    In any and not in all: a case that another model was trained on must be refused by name, not left out.

    Args:
        first: The run whose configuration says where the data lay.
        models: Who was in which role.
        subset: The role.
        root: Where the data lies now; None: where it lay.

    Raises:
        DataError: There is none, or some are missing or have no label.
    """
    data = first.config["data"]
    dataset = discover(root or data["root"] or sample_root(), layout=data["layout"], groups=data["groups"])
    by_id = {case.case_id: case for case in dataset.cases}
    roles = [role for role in ROLES if subset in (role, "all")]
    wanted = list(dict.fromkeys(case_id for role in roles for model in models for case_id in model.roles.of(role)))
    if not wanted:
        names = ", ".join(dict.fromkeys(model.name for model in models))
        mend = "train with data.split.held_out=0.2" if subset == "held_out" else "choose another subset"
        raise DataError(f"the run has no {subset} cases", where=names, mend=mend)
    missing = [case_id for case_id in wanted if case_id not in by_id or by_id[case_id].label is None]
    if missing:
        why = f"{len(missing)} of {len(wanted)}, such as {', '.join(missing[:3])}"
        mend = "data.root=<where the data set lies now>"
        raise DataError(f"{subset} cases have no image or no label there", where=str(dataset.root), why=why, mend=mend)
    return tuple(by_id[case_id] for case_id in wanted)


def facts_of(members: Members, subset: Subset, label: str, seen: Sequence[Sighting]) -> dict[str, Any]:
    """What stands before the numbers in summary.json; of several runs, in lists of the same order."""
    names = [run.directory.name for run in members.runs]
    checkpoints = [
        {"step": run.selection.entry.step, "epoch": run.selection.entry.epoch, "reason": run.selection.reason}
        for run in members.runs
    ]
    precisions = [run.predictor.precision for run in members.runs]
    alone = len(names) == 1
    return {
        "label": label,
        **({"run": names[0]} if alone else {"runs": names}),
        "subset": subset,
        "seen_cases": sorted({one.case_id for one in seen}),
        **({"checkpoint": checkpoints[0]} if alone else {"checkpoints": checkpoints}),
        "average": members.average,
        "device": members.first.predictor.device.type,
        "precision": precisions[0] if alone else precisions,
    }


def _label(case: Case) -> Path:
    assert case.label is not None
    return case.label


def _print(done: Evaluated, lines: Sequence[str]) -> None:
    summary, facts, runs = done.numbers.summary, done.facts, done.members.runs
    print()
    if facts["label"] == SEEN:
        print(
            f"*** {SEEN}: {len(facts['seen_cases'])} of {summary.n_cases} cases; this is no estimate for new cases ***"
        )
    names = " + ".join(run.directory.name for run in runs)
    epochs = ", ".join(str(run.selection.entry.epoch) for run in runs)
    how = f"checkpoint of epoch {epochs}" if len(runs) == 1 else f"mean {done.members.average} of epochs {epochs}"
    print(f"{names}, {facts['label']}: {summary.n_cases} cases, {summary.n_groups} groups, {how}")
    for line in lines:
        print(line)
