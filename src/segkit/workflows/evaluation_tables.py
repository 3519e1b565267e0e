"""What an evaluation writes and prints, whether a run was scored or a folder of masks."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segkit.evaluation import (
    CaseResult,
    ClassDetail,
    DetailSettings,
    DetailSummary,
    EvaluationSettings,
    Summary,
    summarise,
    summarise_details,
    write_per_case,
    write_summary,
)
from segkit.evaluation.nnunet_summary import nnunet_summary, write_nnunet_summary
from segkit.metrics.lesion import LesionSettings
from segkit.types import Labels

NNUNET = Path("nnunet") / "summary.json"
"""The same numbers for nnU-Net's tools."""


@dataclass(frozen=True)
class Numbers:
    """All that was counted and measured.

    Args:
        results: One a case.
        details: One a case and class; none where only voxels were counted.
        labels: Class names.
        summary: Of the voxel counts.
        detail: Of the rest, or None.
        files: By case, its reference and its prediction.
    """

    results: Sequence[CaseResult]
    details: Sequence[ClassDetail]
    labels: Labels
    summary: Summary
    detail: DetailSummary | None
    files: Mapping[str, tuple[Path, Path]]

    def lines(self) -> list[str]:
        """The numbers for a terminal."""
        more = [] if self.detail is None else list(self.detail.table())
        score = f"score {self.summary.score:.4f} = {self.summary.settings.composite.formula}"
        return [*self.summary.table(), *more, score]


def numbers_of(
    results: Sequence[CaseResult],
    details: Sequence[ClassDetail],
    labels: Labels,
    *,
    settings: EvaluationSettings,
    detail: DetailSettings | None,
    unit: str,
    dimensions: int,
    files: Mapping[str, tuple[Path, Path]],
) -> Numbers:
    """Take the cases together.

    Args:
        results: One a case.
        details: One a case and class.
        labels: Class names.
        settings: Those the cases were counted with.
        detail: Those they were measured with; None where they were not.
        unit: Of the distances.
        dimensions: Axes of the masks.
        files: By case, its reference and its prediction.
    """
    summary = summarise(results, labels, settings, unit=unit, dimensions=dimensions)
    if detail is None:
        return Numbers(results, details, labels, summary, None, files)
    more = summarise_details(details, labels, detail, unit=unit, dimensions=dimensions)
    return Numbers(results, details, labels, summary, more, files)


def detail_settings(config: Mapping[str, Any], lesion: LesionSettings, labels: Labels) -> DetailSettings | None:
    """What is measured beside the voxel counts; None where `detail` is off.

    Args:
        config: Keys of configs/evaluate.yaml.
        lesion: The rule of the run, for what the keys leave open.
        labels: Class names.

    Raises:
        UsageError: Tolerances of classes that there are not, or limits that make no sense.
    """
    if not config.get("detail", True):
        return None
    given = {key: value for key, value in config.get("lesion", {}).items() if value is not None}
    told = {key: value for key, value in config.get("surface", {}).items() if value is not None}
    if "size_edges" in given:
        told["size_edges"] = tuple(given.pop("size_edges"))
    settings = DetailSettings(**told, lesion=replace(lesion, **given))
    settings.require_known(labels)
    return settings


def write_cases(output: Path, numbers: Numbers, *, note: str = "") -> None:
    """Write the tables by case; summary.json, which stands for all of them, goes first and comes last.

    Args:
        output: Folder.
        numbers: What to write.
        note: What every line must say of itself.
    """
    (output / "summary.json").unlink(missing_ok=True)
    write_per_case(output / "per_case.csv", numbers.results, numbers.labels, details=numbers.details, note=note)
    if numbers.details:
        # Relative to the file that names them, so that the same evaluation writes the same file wherever it lies.
        here = (output / NNUNET).parent
        files = {case: (true, Path(os.path.relpath(guess, here))) for case, (true, guess) in numbers.files.items()}
        voxels = {detail.case_id: detail.annotated_voxels for detail in numbers.details}
        record = nnunet_summary(numbers.results, numbers.labels, voxels=voxels, files=files)
        write_nnunet_summary(output / NNUNET, record)


def write_numbers(output: Path, numbers: Numbers, *, facts: Mapping[str, Any]) -> None:
    """Write summary.json: the last file of an evaluation.

    Args:
        output: Folder.
        numbers: What to write.
        facts: What stands before the numbers.
    """
    write_summary(output / "summary.json", numbers.summary, facts=facts, detail=numbers.detail)
