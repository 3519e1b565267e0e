"""`evaluate`: score a run on whole images, per case and class, on the images' own voxels."""

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
from segkit.evaluation import CaseResult, Summary, evaluate_case, summarise, write_per_case, write_summary
from segkit.reporting.report import write_report
from segkit.runs.leftovers import discard, sweep_abandoned, temporary_beside
from segkit.types import Case, Labels, PreparedCase
from segkit.workflows.copying import copy_evaluation
from segkit.workflows.loading import TrainedRun, load_from
from segkit.workflows.masks import write_mask
from segkit.workflows.native_overlay import draw_native
from segkit.workflows.provenance import SEEN, Subset, label_of, seen_cases


def run(config: dict[str, Any]) -> Summary:
    """Score the cases of one role.

    Args:
        config: Keys of configs/evaluate.yaml.

    Returns:
        The numbers, which are also printed and written to <run>/evaluation/<subset>.

    Raises:
        UsageError: No such run, or cases asked for that the run has seen.
        DataError: Cases are missing, have no label, or have the content of cases the run has seen.
    """
    trained = load_from(config, config["run"])
    subset: Subset = config["subset"]
    store = Store(_folder(config.get("paths", {}).get("cache"), _own_store(trained)))
    cases = cases_of(trained, subset, root=config.get("data", {}).get("root"))
    seen = seen_cases({case.case_id: store.content_hash(case.images) for case in cases}, trained.roles)
    label = label_of(subset, seen, allow_seen=config.get("allow_seen", False))
    output = _folder(config.get("output"), trained.directory.path / "evaluation" / subset)
    sweep_abandoned(output)
    masks = output / "predictions" if config.get("save_predictions") else None
    started = time.perf_counter()
    results, worst = _score(trained, cases, store, masks=masks, overlays=config["overlays"])
    summary = summarise(results, trained.plan.labels, trained.settings)
    facts = facts_of(trained, subset, label, seen=sorted(seen))
    # The summary stands for all of it: it goes first and comes last, so that it never lies beside other tables.
    (output / "summary.json").unlink(missing_ok=True)
    write_per_case(output / "per_case.csv", results, trained.plan.labels, note=label if label == SEEN else "")
    _draw(output / "overlays", worst, trained.plan.labels, label=label)
    write_summary(output / "summary.json", summary, facts=facts)
    write_report(trained.directory)
    _print(summary, facts, output=output, seconds=time.perf_counter() - started)
    copy_evaluation(trained.directory, trained.config, trust=config.get("trust", False))
    return summary


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


def _score(
    trained: TrainedRun, cases: Sequence[Case], store: Store, *, masks: Path | None, overlays: int
) -> tuple[list[CaseResult], list[_Worst]]:
    """Score case by case; keeps the arrays of the worst only."""
    results: list[CaseResult] = []
    worst: list[_Worst] = []
    for number, case in enumerate(cases, start=1):
        prepared = store.get(case, trained.plan)
        result = evaluate_case(trained.predictor, prepared, trained.settings)
        results.append(result.without_arrays())
        score = summarise([result.without_arrays()], trained.plan.labels, trained.settings).score
        print(f"[{number}/{len(cases)}] {case.case_id}  score {score:.3f}", flush=True)
        if masks is not None:
            assert result.prediction is not None
            path = masks / mask_name(case.case_id, case.images[0])
            like = read_image(case)
            write_mask(path, result.prediction, geometry=prepared.geometry, labels=trained.plan.labels, like=like)
        worst.append(_Worst(case, prepared, replace(result, logits=None), score))
        worst = sorted(worst, key=_Worst.rank)[:overlays]
    return results, worst


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


def _print(summary: Summary, facts: Mapping[str, Any], *, output: Path, seconds: float) -> None:
    print()
    if facts["label"] == SEEN:
        print(
            f"*** {SEEN}: {len(facts['seen_cases'])} of {summary.n_cases} cases; this is no estimate for new cases ***"
        )
    people = f"{summary.n_cases} cases, {summary.n_groups} groups"
    print(f"{facts['run']}, {facts['label']}: {people}, checkpoint of epoch {facts['checkpoint']['epoch']}")
    for line in summary.table():
        print(line)
    print(f"score {summary.score:.4f} = {summary.settings.composite.formula}")
    print(f"{output}  ({seconds:.1f} s)")


def _own_store(trained: TrainedRun) -> Path:
    """Where the run prepared its cases if that is here; a run from elsewhere names no place to write to."""
    named = Path(trained.config["paths"].get("cache") or ".prepared").expanduser().absolute()
    return named if (named / "cases").is_dir() else trained.directory.path.parent / ".prepared"


def _folder(given: str | Path | None, otherwise: str | Path) -> Path:
    return Path(given if given is not None else otherwise).expanduser().absolute()
