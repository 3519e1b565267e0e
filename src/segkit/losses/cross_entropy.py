"""Cross-entropy over annotated voxels.

    softmax:  loss = sum of w_y (-log p_y) / sum of w_y       over voxels with a label, y its class
    sigmoid:  loss = sum of w_k b_k / sum of w_k              over voxels with a label and over classes k

b_k is the binary cross-entropy of class k against the rest, w the weights of the classes.

Edge cases: where everything is ignored the loss is 0 with a gradient of 0. Logarithms are taken of logits
(log-softmax, log-sigmoid), so no probability is clamped and no gradient lost.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from segkit.errors import UsageError
from segkit.losses.soft_counts import CountsLoss, SoftCounts, soft_counts
from segkit.types import LabelBatch, Logits


def cross_entropy_loss(
    logits: Logits,
    label: LabelBatch,
    *,
    class_weights: Float[Tensor, "K"] | None = None,
    activation: Literal["softmax", "sigmoid"] = "softmax",
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the annotated voxels.

    Args:
        logits: (B, K, *S).
        label: (B, 1, *S) class indices; -1 is ignored.
        class_weights: Weight of each class (K,); None for equal ones. Only their ratios matter.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Returns:
        Scalar >= 0, float32 (float64 for float64 logits).
    """
    counts = soft_counts(logits, label, activation=activation)
    return _mean_surprise(counts, class_weights=class_weights, activation=activation)


def _mean_surprise(
    counts: SoftCounts, *, class_weights: Float[Tensor, "K"] | None, activation: Literal["softmax", "sigmoid"]
) -> Float[Tensor, ""]:
    surprise, present = counts.surprise.sum(0), counts.present.sum(0)
    if activation == "sigmoid":
        # Every annotated voxel, which is in one class, has a binary cross-entropy for each.
        present = present.sum().expand_as(present)
    if class_weights is not None:
        weights = class_weights.to(surprise.dtype)
        surprise, present = surprise * weights, present * weights
    return surprise.sum() / _or_one(present.sum())


def _or_one(total: Tensor) -> Tensor:
    """The total, or 1 where nothing was counted: then the sum over it is 0 too."""
    return torch.where(total > 0, total, torch.ones_like(total))


class CrossEntropyLoss(CountsLoss):
    """Cross-entropy; see `cross_entropy_loss`.

    Args:
        class_weights: Weight of each class, background first; None for equal ones.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Raises:
        UsageError: A weight is negative, or all are zero.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        *,
        class_weights: Sequence[float] | None = None,
        activation: Literal["softmax", "sigmoid"] = "softmax",
    ) -> None:
        super().__init__()
        if class_weights is not None and (min(class_weights) < 0 or max(class_weights) == 0):
            raise UsageError(
                "class weights must be at least 0 and not all 0",
                where="loss.class_weights",
                why=f"found {list(class_weights)}",
                mend="loss.class_weights=null",
            )
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        # A setting that moves with the module, not something learnt: it stays out of the checkpoint.
        self.register_buffer("class_weights", weights, persistent=False)
        self.activation: Literal["softmax", "sigmoid"] = activation

    def of_counts(self, counts: SoftCounts) -> Float[Tensor, ""]:
        """Scalar >= 0."""
        return _mean_surprise(counts, class_weights=self.class_weights, activation=self.activation)
