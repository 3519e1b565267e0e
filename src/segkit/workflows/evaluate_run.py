"""`evaluate run=RUN`: score a run on whole images, per case and class, on the images' own voxels."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segkit.data.cases import read_image
from segkit.data.layouts import discover
from segkit.data.readers import mask_name
from segkit.data.sample import sample_root
from segkit.data.splits import ROLES
from segkit.data.store import Store
from segkit.errors import DataError
from segkit.evaluation import CaseResult, ClassDetail, DetailSettings, detail_case, evaluate_case, summarise
from segkit.reporting.report import write_report
from segkit.runs.leftovers import discard, sweep_abandoned, temporary_beside
from segkit.types import Case, Labels, PreparedCase
from segkit.workflows.copying import copy_evaluation
from segkit.workflows.evaluation_tables import Numbers, detail_settings, numbers_of, write_cases, write_numbers
from segkit.workflows.loading import TrainedRun, load_from
from segkit.workflows.masks import write_mask
from segkit.workflows.native_overlay import draw_native
from segkit.workflows.provenance import SEEN, Subset, label_of, seen_cases


@dataclass(frozen=True)
class Evaluated:
    """One run on the cases of one role.

    Args:
        trained: The run.
        numbers: What was counted and measured.
        facts: What stands before the numbers in summary.json.
    """

    trained: TrainedRun
    numbers: Numbers
    facts: dict[str, Any]


def evaluate_run(config: Mapping[str, Any], run: str | Path) -> Evaluated:
    """Score the cases of one role.

    Args:
        config: Keys of configs/evaluate.yaml.
        run: The run folder.

    Returns:
        The numbers, which are also printed and written to <run>/evaluation/<subset>.

    Raises:
        UsageError: No such run, or cases asked for that the run has seen.
        DataError: Cases are missing, have no label, or have the content of cases the run has seen.
    """
    trained = load_from(dict(config), run)
    subset: Subset = config["subset"]
    store = Store(_folder(config.get("paths", {}).get("cache"), trained.prepared_cases))
    cases = cases_of(trained, subset, root=config.get("data", {}).get("root"))
    seen = seen_cases({case.case_id: store.content_hash(case.images) for case in cases}, trained.roles)
    label = label_of(subset, seen, allow_seen=config.get("allow_seen", False))
    output = _folder(config.get("output"), trained.directory.path / "evaluation" / subset)
    sweep_abandoned(output)
    masks = output / "predictions" if config.get("save_predictions") else None
    started = time.perf_counter()
    detail = detail_settings(config, trained.settings.lesion, trained.plan.labels)
    scored = _score(trained, cases, store, detail=detail, masks=masks, overlays=config["overlays"])
    settings, labels = trained.settings, trained.plan.labels
    unit = trained.plan.unit
    files = {case.case_id: (_label(case), _mask(case, masks or output / "predictions")) for case in cases}
    numbers = numbers_of(
        scored.results, scored.details, labels, settings=settings, detail=detail, unit=unit, files=files
    )
    facts = facts_of(trained, subset, label, seen=sorted(seen))
    write_cases(output, numbers, note=label if label == SEEN else "")
    _draw(output / "overlays", scored.worst, labels, label=label)
    write_numbers(output, numbers, facts=facts)
    write_report(trained.directory)
    _print(numbers, facts, output=output, seconds=time.perf_counter() - started)
    copy_evaluation(trained.directory, trained.config, trust=config.get("trust", False))
    return Evaluated(trained, numbers, facts)


def cases_of(trained: TrainedRun, subset: Subset, *, root: str | None) -> tuple[Case, ...]:
    """The labelled cases of a role, by name, where the data lies now.

    Raises:
        DataError: There is none, or some are missing or have no label.
    """
    data = trained.config["data"]
    dataset = discover(root or data["root"] or sample_root(), layout=data["layout"], groups=data["groups"])
    by_id = {case.case_id: case for case in dataset.cases}
    roles = trained.roles
    wanted = [case_id for role in ROLES if subset in (role, "all") for case_id in roles.of(role)]
    if not wanted:
        raise DataError(
            f"the run has no {subset} cases", where=str(trained.directory.split), mend="choose another subset"
        )
    missing = [case_id for case_id in wanted if case_id not in by_id or by_id[case_id].label is None]
    if missing:
        why = f"{len(missing)} of {len(wanted)}, such as {', '.join(missing[:3])}"
        mend = "data.root=<where the data set lies now>"
        raise DataError(f"{subset} cases have no image or no label there", where=str(dataset.root), why=why, mend=mend)
    return tuple(by_id[case_id] for case_id in wanted)


def facts_of(trained: TrainedRun, subset: Subset, label: str, *, seen: Sequence[str]) -> dict[str, Any]:
    """What stands before the numbers in summary.json."""
    entry, predictor = trained.selection.entry, trained.predictor
    return {
        "label": label,
        "run": trained.directory.name,
        "subset": subset,
        "seen_cases": list(seen),
        "checkpoint": {"step": entry.step, "epoch": entry.epoch, "reason": trained.selection.reason},
        "device": predictor.device.type,
        "precision": predictor.precision,
    }


@dataclass(frozen=True)
class _Worst:
    """One of the worst cases, with what a picture of it needs."""

    case: Case
    prepared: PreparedCase
    result: CaseResult
    score: float

    def rank(self) -> tuple[float, str]:
        """Worst first; a healthy case, which has no score, last."""
        return (math.inf if math.isnan(self.score) else self.score, self.case.case_id)


@dataclass
class _Scored:
    """What was counted and measured, and the worst cases with their arrays."""

    results: list[CaseResult]
    details: list[ClassDetail]
    worst: list[_Worst]


def _score(
    trained: TrainedRun,
    cases: Sequence[Case],
    store: Store,
    *,
    detail: DetailSettings | None,
    masks: Path | None,
    overlays: int,
) -> _Scored:
    """Score case by case; keeps the arrays of the worst only."""
    done, labels = _Scored([], [], []), trained.plan.labels
    for number, case in enumerate(cases, start=1):
        prepared = store.get(case, trained.plan)
        result = evaluate_case(trained.predictor, prepared, trained.settings)
        assert result.prediction is not None
        assert prepared.native_label is not None
        done.results.append(result.without_arrays())
        score = summarise([result.without_arrays()], labels, trained.settings).score
        if detail is not None:
            done.details += detail_case(
                result.prediction,
                prepared.native_label,
                case_id=case.case_id,
                group=case.group,
                spacing=prepared.geometry.native_spacing,
                labels=labels,
                settings=detail,
                instances=prepared.native_instances,
            )
        print(f"[{number}/{len(cases)}] {case.case_id}  score {score:.3f}", flush=True)
        if masks is not None:
            path, like = _mask(case, masks), read_image(case)
            write_mask(path, result.prediction, geometry=prepared.geometry, labels=labels, like=like)
        done.worst.append(_Worst(case, prepared, replace(result, logits=None), score))
        done.worst = sorted(done.worst, key=_Worst.rank)[:overlays]
    return done


def _mask(case: Case, folder: Path) -> Path:
    """Where the predicted mask of a case lies, or would lie."""
    return folder / mask_name(case.case_id, case.images[0])


def _label(case: Case) -> Path:
    assert case.label is not None
    return case.label


def _draw(folder: Path, worst: Sequence[_Worst], labels: Labels, *, label: str) -> None:
    """Draw the worst cases on their own voxels; the folder of pictures is replaced as a whole."""
    if not worst:
        return
    staged = temporary_beside(folder)
    staged.mkdir(parents=True)
    for rank, one in enumerate(worst, start=1):
        draw_native(
            one.case,
            one.prepared,
            one.result.prediction,
            labels=labels,
            path=staged / f"{rank:02d}-{one.case.case_id}.png",
            title=f"{one.case.case_id}  score {one.score:.3f}  ({label})",
        )
    trash = temporary_beside(folder, suffix=".trash")
    if folder.exists():
        folder.rename(trash)
    staged.rename(folder)
    discard(trash)


def _print(numbers: Numbers, facts: Mapping[str, Any], *, output: Path, seconds: float) -> None:
    summary = numbers.summary
    print()
    if facts["label"] == SEEN:
        print(
            f"*** {SEEN}: {len(facts['seen_cases'])} of {summary.n_cases} cases; this is no estimate for new cases ***"
        )
    people = f"{summary.n_cases} cases, {summary.n_groups} groups"
    print(f"{facts['run']}, {facts['label']}: {people}, checkpoint of epoch {facts['checkpoint']['epoch']}")
    for line in numbers.lines():
        print(line)
    print(f"{output}  ({seconds:.1f} s)")


def _folder(given: str | Path | None, otherwise: str | Path) -> Path:
    return Path(given if given is not None else otherwise).expanduser().absolute()
