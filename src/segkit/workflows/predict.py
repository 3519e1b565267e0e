"""`predict`: masks for new images, each in its image's own geometry, size and file type."""

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segkit.data.layouts import image_cases
from segkit.data.readers import mask_name, read
from segkit.errors import DataError, UsageError
from segkit.evaluation.native import Average
from segkit.inference.postprocessing import PostProcessing
from segkit.ops.connected_components import size_unit
from segkit.ops.freed_memory import give_back_freed_memory, keep_freed_memory
from segkit.runs.files import atomic_write, read_json, write_json
from segkit.runs.leftovers import sweep_abandoned
from segkit.types import Case
from segkit.workflows.contact_sheet import contact_sheet
from segkit.workflows.loading import TrainedRun, load, load_from, models_of
from segkit.workflows.members import require_compatible
from segkit.workflows.memory_limit import MemoryLimit
from segkit.workflows.postprocessing import STORED, postprocessing_for
from segkit.workflows.predicting import Job, Predicting
from segkit.workflows.probabilities import probability_path

__all__ = ["load", "run"]

_logger = logging.getLogger(__name__)

RECORD = "prediction.json"
"""Which models the masks of a folder are by: a folder is only gone on with by the same ones."""
ERRORS = "errors.csv"


def run(config: dict[str, Any]) -> list[Path]:
    """Predict every image of a file, a folder or a table.

    Args:
        config: Keys of configs/predict.yaml; `run` is one run or a list, which are averaged.

    Returns:
        The masks that are there now.

    Raises:
        UsageError: Runs that do not go together, post-processing of other models, or an output folder that holds
            something else.
        DataError: An image could not be predicted; the others are written, and errors.csv says which and why.
    """
    if config.get("memory_gb") is None:
        keep_freed_memory()
    else:  # a promise of memory comes before speed
        give_back_freed_memory()
    runs = config["run"] if isinstance(config["run"], list | tuple) else [config["run"]]
    members = [load_from(config, one) for one in runs]
    require_compatible(members)
    cases = image_cases(config["input"])
    output = Path(config["output"]).expanduser().absolute()
    targets = targets_of(cases, output)
    average, wanted = config.get("average", "logits"), config.get("probabilities", False)
    rules = _postprocessing(members, average, config.get("postprocess", STORED))
    record = _record(members, average, rules)
    kept = _prepare_output(output, targets, record, overwrite=config.get("overwrite", False))
    sheet = contact_sheet(config, output, dict(zip(targets, cases, strict=True)), members)
    jobs = [
        Job(f"[{number}/{len(cases)}] {case.case_id}", case, target, probability_path(output, case), sheet)
        for number, (case, target) in enumerate(zip(cases, targets, strict=True), start=1)
    ]
    if wanted:
        kept -= {job.target for job in jobs if not job.probabilities.exists()}
    limit = MemoryLimit(members, memory_gb=config.get("memory_gb"), scratch=output)
    faults = Predicting(limit, average=average, probabilities=wanted, postprocessing=rules).all(jobs, kept=kept)
    _write_errors(output / ERRORS, faults)
    if sheet is not None:
        print(sheet.finish([(job.case.case_id, error) for job, error in faults]))
    if faults:
        raise DataError(
            f"{len(faults)} of {len(cases)} images could not be predicted",
            where=str(output / ERRORS),
            why=str(faults[0][1]) if len(faults) == 1 else "; ".join(sorted({error.what for _, error in faults})),
            mend="mend these images and run the same command again: the masks that are there are kept",
        )
    return targets


def targets_of(cases: Sequence[Case], output: Path) -> list[Path]:
    """Where the mask of each case goes.

    Raises:
        UsageError: Two masks would have one name, or a mask would replace an image.
    """
    targets = [output / mask_name(case.case_id, case.images[0]) for case in cases]
    first: dict[Path, Case] = {}
    images = {path.resolve(): case for case in cases for path in case.images}
    for case, target in zip(cases, targets, strict=True):
        other = first.setdefault(target, case)
        if other is not case:
            why = f"{other.images[0].name} and {case.images[0].name}"
            raise UsageError("two masks would have one name", where=str(target), why=why, mend="rename one image")
        if target.resolve() in images:
            mend = "output=<another folder>"
            raise UsageError("a mask would replace an image", where=str(target), mend=mend)
    return targets


def _postprocessing(members: Sequence[TrainedRun], average: Average, postprocess: str) -> PostProcessing | None:
    """The rules for the masks, which are told; None where there are none."""
    runs, plan = [member.directory.path for member in members], members[0].plan
    found = postprocessing_for(runs, models_of(members), plan.labels, average=average, postprocess=postprocess)
    if found is None:
        return None
    print(found.text(size_unit(plan.unit, plan.dimensions)))
    return found.rules


def _record(members: Sequence[TrainedRun], average: str, rules: PostProcessing | None) -> dict[str, Any]:
    return {
        "runs": models_of(members),
        "average": average,
        "postprocessing": rules.to_json() if rules is not None and rules.changes else None,
        "note": "Research software, not a medical device.",
    }


def _prepare_output(output: Path, targets: Sequence[Path], record: dict[str, Any], *, overwrite: bool) -> set[Path]:
    """Make the folder, note whose masks it will hold, and find those that are there already.

    Raises:
        UsageError: There are masks that these models did not write, and `overwrite` is off.
    """
    output.mkdir(parents=True, exist_ok=True)
    sweep_abandoned(output)
    there = {target for target in targets if target.exists()}
    path = output / RECORD
    if there and not overwrite:
        try:
            same = {"postprocessing": None} | read_json(path) == record  # the first versions had none
        except (OSError, ValueError):
            same = False
        if not same:
            raise UsageError(
                "masks of other models, or other files, stand where these would be written",
                where=str(sorted(there)[0]),
                why=f"{len(there)} files; {path.name} does not name these runs and settings",
                mend="output=<another folder>, or overwrite=true",
            )
    write_json(path, record)
    return set() if overwrite else {target for target in there if _whole(target)}


def _whole(mask: Path) -> bool:
    """Whether a mask that is there can be read to its end; what cannot is named, and made again.

    segkit leaves no half masks behind. A copy that was broken off, or a disk that lost power, does.
    """
    try:
        read(mask, role="label")
    except DataError as error:
        _logger.warning("%s is made again: %s", mask, error.what)
        return False
    return True


def _write_errors(path: Path, faults: Sequence[tuple[Job, DataError]]) -> None:
    """One row an image that was not predicted; without any, no file."""
    if not faults:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case_id", "file", "what", "where", "why", "mend"])
    for job, error in faults:
        writer.writerow([job.case.case_id, job.case.images[0], error.what, error.where, error.why, error.mend])
    atomic_write(path, text.getvalue())
