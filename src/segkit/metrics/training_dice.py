"""Dice of training patches, by the definition that validation uses on whole images."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric


def sample_counts(
    logits: Float[Tensor, "B K *S"], label: Int[Tensor, "B 1 *S"]
) -> tuple[Int[Tensor, "B K"], Int[Tensor, "B K"], Int[Tensor, "B K"]]:
    """TP, FP and FN by sample and class of the most likely class; voxels labelled -1 are left out.

    Class by class, so that it needs no synchronisation with the device, is deterministic there, and never
    holds more than one mask.
    """
    reference = label[:, 0].flatten(1)
    prediction = logits.argmax(dim=1).flatten(1)
    annotated = reference >= 0
    by_class = []
    for index in range(logits.shape[1]):
        predicted, present = (prediction == index) & annotated, reference == index
        tp = (predicted & present).sum(dim=1)
        by_class.append((tp, predicted.sum(dim=1) - tp, present.sum(dim=1) - tp))
    tp, fp, fn = (torch.stack(counts, dim=1) for counts in zip(*by_class, strict=True))
    return tp, fp, fn


class TrainingDice(Metric):
    """Running mean of the Dice of each class over the samples that have it in their reference.

    A sample without the class does not count, as in validation; `compute` is NaN for a class never seen.

    Args:
        num_classes: Classes, background included.
    """

    full_state_update = False
    total: Tensor
    seen: Tensor

    def __init__(self, num_classes: int, **kwargs: Any) -> None:  # noqa: ANN401  (torchmetrics' own options)
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros(num_classes), dist_reduce_fx="sum")
        self.add_state("seen", torch.zeros(num_classes), dist_reduce_fx="sum")

    def update(self, logits: Float[Tensor, "B K *S"], label: Int[Tensor, "B 1 *S"]) -> None:
        """Count the samples of a batch."""
        tp, fp, fn = sample_counts(logits, label)
        present = tp + fn > 0
        value = 2 * tp / (2 * tp + fp + fn).clamp_min(1)
        self.total += torch.where(present, value, 0.0).sum(dim=0)
        self.seen += present.sum(dim=0)

    def compute(self) -> Float[Tensor, " K"]:
        """Mean Dice of each class; NaN (0/0) where no sample had it."""
        return self.total / self.seen
