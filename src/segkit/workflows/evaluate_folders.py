"""`evaluate predictions=FOLDER reference=FOLDER`: any two folders of masks, whoever made them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from segkit.data.annotated import annotated_classes, annotated_indices, with_annotated
from segkit.data.cases import geometry_mismatch, integer_values, read_label
from segkit.data.declaration import declaration, label_values
from segkit.data.geometry import canonical
from segkit.data.groups import with_groups
from segkit.data.labels import infer_labels, to_class_indices
from segkit.data.layouts import Dataset
from segkit.data.names import require_usable_ids
from segkit.data.readers import ending_of, read, stem_of
from segkit.errors import DataError, UsageError
from segkit.evaluation import (
    CaseResult,
    ClassDetail,
    DetailSettings,
    EvaluationSettings,
    Summary,
    count_masks,
    detail_case,
)
from segkit.metrics.lesion import LesionSettings
from segkit.runs.leftovers import sweep_abandoned
from segkit.types import Case, Geometry, Labels
from segkit.workflows.evaluation_tables import detail_settings, numbers_of, write_cases, write_numbers

LABEL = "masks of a folder"
"""What the numbers call themselves: nobody knows what their maker had seen."""
_NAMED = 5


def evaluate_folders(config: Mapping[str, Any]) -> Summary:
    """Score a folder of masks against another.

    Args:
        config: Keys of configs/evaluate.yaml; `predictions` and `reference` are folders.

    Returns:
        The numbers, which are also printed and written to `output`, by default `evaluation` in the folder of the
        predictions.

    Raises:
        UsageError: No reference is given, or a folder is not there.
        DataError: A reference has no prediction, or one that lies on another grid; a file cannot be read.
    """
    if config.get("reference") is None:
        raise UsageError("there is nothing to score against", where="reference", mend="reference=<folder of masks>")
    predictions, reference = (Path(config[key]).expanduser().absolute() for key in ("predictions", "reference"))
    cases = paired_masks(predictions, reference)
    cases = with_groups(cases, config.get("groups"), root=reference)
    root = _declared_in(reference, config.get("labels"))
    declared = declaration(root)
    values = label_values(declared, root)
    cases = with_annotated(cases, annotated_classes(declared, values, root))
    dataset = Dataset(reference.name, root, "paired", (), cases, values)
    labels = infer_labels(dataset, cases, kind=config.get("label_kind", "auto"))
    settings = EvaluationSettings()
    detail = detail_settings(config, LesionSettings(), labels)
    output = Path(config.get("output") or predictions / "evaluation").expanduser().absolute()
    output.mkdir(parents=True, exist_ok=True)
    sweep_abandoned(output)
    started = time.perf_counter()
    results: list[CaseResult] = []
    details: list[ClassDetail] = []
    units: set[str] = set()
    axes: set[int] = set()
    for number, case in enumerate(cases, start=1):
        masks = _read(case, labels)
        units.add(masks.geometry.unit)
        axes.add(len(masks.geometry.native_shape))
        results.append(_count(case, masks, labels, settings))
        details += _measure(case, masks, labels, detail)
        print(f"[{number}/{len(cases)}] {case.case_id}", flush=True)
    unit = "pixel" if units == {"pixel"} else "mm"
    files = {case.case_id: (_reference(case), case.images[0]) for case in cases}
    numbers = numbers_of(
        results, details, labels, settings=settings, detail=detail, unit=unit, dimensions=max(axes), files=files
    )
    write_cases(output, numbers)
    facts = {"label": LABEL, "predictions": str(predictions), "reference": str(reference)}
    write_numbers(output, numbers, facts=facts)
    print(f"\n{predictions.name} against {reference.name}: {len(cases)} cases, {numbers.summary.n_groups} groups")
    for line in numbers.lines():
        print(line)
    print(f"{output}  ({time.perf_counter() - started:.1f} s)")
    return numbers.summary


def paired_masks(predictions: Path, reference: Path) -> tuple[Case, ...]:
    """Each reference with its prediction: files of one name, whatever their endings.

    Masks that were predicted for cases without a reference are passed over and named.

    Args:
        predictions: Folder of masks.
        reference: Likewise; every one of its cases must have been predicted.

    Returns:
        Cases whose image is the prediction and whose label is the reference, by name.

    Raises:
        UsageError: A folder is not there.
        DataError: No reference, one without a prediction, or two files of one name.
    """
    guessed, true = (_masks_in(folder, key) for folder, key in ((predictions, "predictions"), (reference, "reference")))
    missing = sorted(set(true) - set(guessed))
    if missing or not true:
        raise DataError(
            "cases were not predicted" if true else "there is no reference mask",
            where=str(predictions if true else reference),
            why=f"{len(missing)} of {len(true)} are missing, such as {', '.join(missing[:_NAMED])}" if true else "",
            mend="predict them, or take their references out: what is missing is never left out of a mean",
        )
    if extra := sorted(set(guessed) - set(true)):
        named = ", ".join(extra[:_NAMED])
        print(f"{len(extra)} predictions have no reference and are passed over, such as {named}", flush=True)
    cases = tuple(Case(name, (guessed[name],), true[name], name) for name in sorted(true))
    require_usable_ids(cases)
    return cases


@dataclass(frozen=True)
class _Masks:
    """Both masks of a case in RAS+ order: class indices, and instances where the labels are instances."""

    prediction: Int[np.ndarray, "..."]
    reference: Int[np.ndarray, "..."]
    predicted_instances: Int[np.ndarray, "..."] | None
    instances: Int[np.ndarray, "..."] | None
    geometry: Geometry


def _masks_in(folder: Path, key: str) -> Mapping[str, Path]:
    """The masks of a folder by name."""
    if not folder.is_dir():
        raise UsageError("there is no such folder", where=f"{key}={folder}", mend=f"{key}=<folder of masks>")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_file() or ending_of(path) is None:
            continue
        if (other := found.setdefault(stem_of(path), path)) is not path:
            why = f"{other.name} and {path.name}"
            raise DataError("two masks have one name", where=str(folder), why=why, mend="take one of them away")
    return found


def _declared_in(reference: Path, named: str | None) -> Path:
    """The folder whose dataset.json says what the values mean: the named one, else that of the masks or above it."""
    if named is None:
        return next((one for one in (reference, reference.parent) if (one / "dataset.json").is_file()), reference)
    path = Path(named).expanduser().absolute()
    root = path.parent if path.name == "dataset.json" else path
    if not (root / "dataset.json").is_file():
        raise UsageError("there is no dataset.json", where=f"labels={named}", mend="labels=<dataset.json>")
    return root


def _read(case: Case, labels: Labels) -> _Masks:
    values, volume = read_label(case)
    guess = read(case.images[0], role="label", case=case.case_id)
    if mismatch := geometry_mismatch(volume, guess):
        raise DataError(
            "prediction and reference do not lie on one grid",
            where=f"case {case.case_id}, {guess.path}",
            why=mismatch,
            mend="write the prediction on the image's own voxels, or copy the header if only that is wrong",
        )
    guessed = integer_values(guess, case=case.case_id)
    where = f"case {case.case_id}"
    prediction = to_class_indices(guessed, labels, where=f"{where}, {guess.path}")
    truth = to_class_indices(values, labels, where=f"{where}, {volume.path}")

    def turned(array: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        return np.ascontiguousarray(canonical(replace(volume, array=array[None]))[0][0])

    instances = labels.kind == "instances"
    return _Masks(
        prediction=turned(np.maximum(prediction, 0)),
        reference=turned(truth),
        predicted_instances=turned(np.maximum(guessed, 0)) if instances else None,
        instances=turned(np.where(truth > 0, values, 0)) if instances else None,
        geometry=canonical(volume)[1],
    )


def _count(case: Case, masks: _Masks, labels: Labels, settings: EvaluationSettings) -> CaseResult:
    rows = count_masks(
        masks.prediction.astype(np.int16),
        masks.reference,
        case_id=case.case_id,
        group=case.group,
        num_classes=labels.num_classes,
        spacing=masks.geometry.native_spacing,
        settings=settings,
        instances=masks.instances,
        annotated=annotated_indices(case, labels),
    )
    return CaseResult(case.case_id, case.group, rows)


def _measure(case: Case, masks: _Masks, labels: Labels, settings: DetailSettings | None) -> tuple[ClassDetail, ...]:
    if settings is None:
        return ()
    return detail_case(
        masks.prediction,
        masks.reference,
        case_id=case.case_id,
        group=case.group,
        spacing=masks.geometry.native_spacing,
        labels=labels,
        settings=settings,
        instances=masks.instances,
        predicted_instances=masks.predicted_instances,
        annotated=annotated_indices(case, labels),
    )


def _reference(case: Case) -> Path:
    assert case.label is not None
    return case.label
