"""Per-class counts of true and false positives and negatives."""

from dataclasses import dataclass

import torch
from jaxtyping import Int, Integer
from torch import Tensor

from segkit.errors import DataError


@dataclass(frozen=True)
class Counts:
    """Voxels of each class, int64, (K,); sums over cases by `+`.

    Args:
        tp: Of the class in the prediction and in the reference.
        fp: In the prediction only.
        fn: In the reference only.
        tn: In neither.
    """

    tp: Int[Tensor, "K"]
    fp: Int[Tensor, "K"]
    fn: Int[Tensor, "K"]
    tn: Int[Tensor, "K"]

    def __add__(self, other: "Counts") -> "Counts":
        """Counts of both together."""
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)


def confusion(prediction: Integer[Tensor, "*S"], reference: Integer[Tensor, "*S"], num_classes: int) -> Counts:
    """Count by class, voxels whose reference is -1 left out.

    One histogram of `reference * K + prediction` holds the whole confusion matrix M; with its row sums R (reference)
    and column sums P (prediction): tp = diag M, fp = P - tp, fn = R - tp, tn = sum M - tp - fp - fn.

    Args:
        prediction: Class indices 0 ... K-1, any shape.
        reference: Class indices, -1 where nothing is known; the same shape.
        num_classes: K, background included.

    Returns:
        Counts on the device of the inputs.

    Raises:
        DataError: A value is not a class index.
    """
    predicted, known = prediction.flatten().long(), reference.flatten().long()
    for name, values, lowest in (("prediction", predicted, 0), ("reference", known, -1)):
        if values.numel() and not (lowest <= int(values.min()) and int(values.max()) < num_classes):
            raise DataError(
                f"the {name} holds a value that is not a class",
                where=name,
                why=f"values {int(values.min())} to {int(values.max())}, classes 0 to {num_classes - 1}",
                mend="map label values to class indices before counting",
            )
    ignored = num_classes * num_classes
    code = torch.where(known < 0, ignored, known * num_classes + predicted)
    matrix = torch.bincount(code, minlength=ignored + 1)[:ignored].reshape(num_classes, num_classes)
    tp = matrix.diagonal().clone()
    fp, fn = matrix.sum(0) - tp, matrix.sum(1) - tp
    return Counts(tp=tp, fp=fp, fn=fn, tn=matrix.sum() - tp - fp - fn)
