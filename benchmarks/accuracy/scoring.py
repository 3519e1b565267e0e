"""One scorer for all contenders: Dice a case and class, from label files on the images' own voxels."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

CLASSES = {"anterior": 1, "posterior": 2}
COLUMNS = ("case", "group", *(f"dice_{name}" for name in CLASSES), "dice_mean")


@dataclass(frozen=True)
class CaseScore:
    """The Dice of one case.

    Args:
        case: Its id.
        group: The person.
        dice: One value a class, in the order of `CLASSES`.
    """

    case: str
    group: str
    dice: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the classes: the foreground Dice of the case."""
        return math.fsum(self.dice) / len(self.dice)


def dice(prediction: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    """2 |P and T| / (|P| + |T|), shape (x, y, z) each; 1 where both are empty.

    Raises:
        ValueError: The shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"a prediction of shape {prediction.shape} beside a reference of shape {truth.shape}")
    total = int(prediction.sum()) + int(truth.sum())
    return 2.0 * int((prediction & truth).sum()) / total if total else 1.0


def score_folder(predictions: Path, data: Path, cases: Sequence[str]) -> list[CaseScore]:
    """Score the masks of a folder against the labels of a data set in nnU-Net's raw layout.

    Args:
        predictions: Folder with one `CASE.nii.gz` a case.
        data: Folder with `labelsTr/` and `groups.csv`.
        cases: Who is scored; a missing mask is an error, never left out.

    Raises:
        FileNotFoundError: A case has no mask or no label.
        ValueError: A mask does not lie where its image lies.
    """
    with (data / "groups.csv").open(newline="") as rows:
        group = {row["case"]: row["group"] for row in csv.DictReader(rows)}
    return [_score(case, group[case], predictions, data / "labelsTr") for case in cases]


def write_table(path: Path, table: Sequence[CaseScore]) -> None:
    """Write the per-case table, columns `COLUMNS`, six decimals."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([row.case, row.group, *(f"{d:.6f}" for d in (*row.dice, row.mean))] for row in table)


def read_table(path: Path) -> list[CaseScore]:
    """The inverse of `write_table`."""
    with path.open(newline="") as rows:
        return [
            CaseScore(row["case"], row["group"], tuple(float(row[f"dice_{name}"]) for name in CLASSES))
            for row in csv.DictReader(rows)
        ]


def _score(case: str, group: str, predictions: Path, labels: Path) -> CaseScore:
    mask, truth = (nib.Nifti1Image.load(folder / f"{case}.nii.gz") for folder in (predictions, labels))
    if not np.allclose(mask.affine, truth.affine, atol=1e-3):
        raise ValueError(f"the mask of {case} does not lie where its reference lies")
    found, wanted = (np.rint(np.asanyarray(image.dataobj)).astype(np.int16) for image in (mask, truth))
    return CaseScore(case, group, tuple(dice(found == k, wanted == k) for k in CLASSES.values()))
