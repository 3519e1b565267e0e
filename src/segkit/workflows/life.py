"""What the ranks of one life of a run are told, beside its config.yaml and plan.json: a file of plain values.

The process that holds the run decides, prepares and writes it; the ranks read it and decide nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segkit.data.stored_case import StoredCase, stored_case
from segkit.runs.directory import RunDirectory
from segkit.runs.evaluations import CASES
from segkit.runs.files import read_json, write_json
from segkit.types import Case

CasePair = tuple[Case, StoredCase]


@dataclass(frozen=True)
class Life:
    """One life of a run.

    Args:
        max_epochs: Epochs in all.
        checkpoint: Where it goes on, or None.
        train: Training cases: their files, and as prepared.
        tuning: Tuning cases likewise.
    """

    max_epochs: int
    checkpoint: Path | None
    train: tuple[CasePair, ...]
    tuning: tuple[CasePair, ...]

    def write(self, run: RunDirectory) -> None:
        """Write it into the run folder."""
        run.ranks.mkdir(parents=True, exist_ok=True)
        record = {
            "max_epochs": self.max_epochs,
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
            "train": _records(self.train),
            "tuning": _records(self.tuning),
        }
        write_json(run.ranks / "life.json", record)

    @classmethod
    def read(cls, run: RunDirectory) -> "Life":
        """What `write` has written."""
        record = read_json(run.ranks / "life.json")
        return cls(
            max_epochs=int(record["max_epochs"]),
            checkpoint=None if record["checkpoint"] is None else Path(record["checkpoint"]),
            train=tuple(map(_pair, record["train"])),
            tuning=tuple(map(_pair, record["tuning"])),
        )

    def write_tuning(self, run: RunDirectory) -> None:
        """Write the tuning cases for evaluations apart from the training."""
        run.evaluations.mkdir(parents=True, exist_ok=True)
        write_json(run.evaluations / CASES, {"tuning": _records(self.tuning)})


def read_tuning(run: RunDirectory) -> tuple[CasePair, ...]:
    """What `Life.write_tuning` has written."""
    return tuple(map(_pair, read_json(run.evaluations / CASES)["tuning"]))


def _records(pairs: Sequence[CasePair]) -> list[dict[str, Any]]:
    return [
        {
            "case_id": case.case_id,
            "images": [str(path) for path in case.images],
            "label": None if case.label is None else str(case.label),
            "group": case.group,
            "annotated": case.annotated,
            "folder": str(stored.folder),
            "annotated_indices": None if stored.annotated is None else sorted(stored.annotated),
        }
        for case, stored in pairs
    ]


def _pair(record: dict[str, Any]) -> CasePair:
    label = record["label"]
    images = tuple(Path(path) for path in record["images"])
    names, indices = record.get("annotated"), record.get("annotated_indices")
    case = Case(
        case_id=record["case_id"],
        images=images,
        label=None if label is None else Path(label),
        group=record["group"],
        annotated=None if names is None else tuple(names),
    )
    annotated = None if indices is None else frozenset(indices)
    return case, stored_case(case, Path(record["folder"]), annotated=annotated)
