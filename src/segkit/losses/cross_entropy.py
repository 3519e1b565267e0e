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
from torch.nn import functional as F

from segkit.errors import UsageError
from segkit.losses.loss import Loss, full_precision
from segkit.ops.one_hot import one_hot
from segkit.types import LabelBatch, Logits, Target


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
    logits = full_precision(logits)
    annotated = (label >= 0).to(logits.dtype)
    if activation == "sigmoid":
        truth = one_hot(label, logits.shape[1]).to(logits.dtype)
        weight = annotated if class_weights is None else annotated * _by_channel(class_weights, logits)
        loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        return (loss * weight).sum() / _or_one(weight.expand_as(loss).sum())
    index = label.long().clamp(min=0)
    # log-softmax and gather instead of F.cross_entropy: as fast, and CUDA's summed negative log-likelihood of images is
    # not deterministic.
    loss = -logits.log_softmax(1).gather(1, index)
    weight = annotated if class_weights is None else annotated * class_weights.to(logits.dtype)[index]
    return (loss * weight).sum() / _or_one(weight.sum())


def _by_channel(class_weights: Tensor, logits: Tensor) -> Tensor:
    """(K,) as (1, K, 1, ...)."""
    return class_weights.to(logits.dtype).view(1, -1, *[1] * (logits.ndim - 2))


def _or_one(total: Tensor) -> Tensor:
    """The total, or 1 where nothing was counted: then the sum over it is 0 too."""
    return torch.where(total > 0, total, torch.ones_like(total))


class CrossEntropyLoss(Loss):
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

    def forward(self, logits: Logits, target: Target) -> Float[Tensor, ""]:
        """Scalar >= 0."""
        return cross_entropy_loss(logits, target.label, class_weights=self.class_weights, activation=self.activation)
