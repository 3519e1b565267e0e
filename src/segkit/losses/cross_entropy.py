"""Cross-entropy over annotated voxels.

    softmax:  loss = sum of w_y (-log p_y) / sum of w_y       over voxels with a label, y its class
    sigmoid:  loss = sum of w_k b_k / sum of w_k              over voxels with a label and over classes k

b_k is the binary cross-entropy of class k against the rest, w the weights of the classes. Both sums run over the batch
of all ranks together.

`label_smoothing` e puts (1 - e) y_k + e / K in the place of the one-hot label y (sigmoid: (1 - e) y_k + e / 2). `top_k`
keeps the share k of the annotated voxels that cost most, at least one voxel. Each process chooses among its own: the
hardest of all would have to be sent around.

    loss = sum of l / sum of w        over the floor(k n) voxels with the largest l, of n

Edge cases: where everything is ignored the loss is 0 with a gradient of 0. Logarithms are taken of logits
(log-softmax, log-sigmoid), so no probability is clamped and no gradient lost.

Reference:
    Szegedy et al. (2016) for label smoothing; Wu et al., Bridging Category-level and Instance-level Semantic Image
    Segmentation (2016) and nnU-Net for the hardest voxels.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from segkit.errors import UsageError
from segkit.losses.soft_counts import CountsLoss, SoftCounts, soft_counts
from segkit.losses.voxels import by_class, voxels
from segkit.ops.ranks import part_of_mean
from segkit.types import LabelBatch, Logits, Target


def cross_entropy_loss(
    logits: Logits,
    label: LabelBatch,
    *,
    class_weights: Float[Tensor, "K"] | None = None,
    label_smoothing: float = 0.0,
    top_k: float | None = None,
    activation: Literal["softmax", "sigmoid"] = "softmax",
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the annotated voxels.

    Args:
        logits: (B, K, *S).
        label: (B, 1, *S) class indices; -1 is ignored.
        class_weights: Weight of each class (K,); None for equal ones. Only their ratios matter.
        label_smoothing: Share of the label that is spread evenly over the classes.
        top_k: Share of the annotated voxels that is kept, those that cost most; None for all.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Returns:
        Scalar >= 0, float32 (float64 for float64 logits). Of several ranks each has its part; their mean is the loss.
    """
    if label_smoothing == 0 and top_k is None:
        counts = soft_counts(logits, label, activation=activation)
        return _mean_surprise(counts, class_weights=class_weights, activation=activation)
    with torch.autocast(logits.device.type, enabled=False):
        x, truth, known = voxels(logits, label)
        weights = by_class(torch.ones(x.shape[1], device=x.device) if class_weights is None else class_weights, x)
        if activation == "softmax":
            smoothed = truth * (1 - label_smoothing) + known * (label_smoothing / x.shape[1])
            surprise = -(smoothed * weights * x.log_softmax(1)).sum(1)
            weight = (truth * weights).sum(1)
        else:
            smoothed = truth * (1 - label_smoothing) + label_smoothing / 2
            binary = F.binary_cross_entropy_with_logits(x, smoothed, reduction="none")
            surprise = (binary * weights * known).sum(1)
            weight = (known * weights).sum(1)
        if top_k is not None:
            surprise, weight = _hardest(surprise.flatten(), weight.flatten(), known.flatten(), share=top_k)
        return part_of_mean(surprise.sum(), weight.sum())


def _hardest(
    surprise: Float[Tensor, "n"], weight: Float[Tensor, "n"], known: Float[Tensor, "n"], *, share: float
) -> tuple[Float[Tensor, "m"], Float[Tensor, "m"]]:
    """The most surprising of the annotated voxels, and their weights; 0 past those that are kept.

    How many are annotated is known to the device alone. So as many are taken as there could be at most, hardest first
    and ignored ones last, and the surplus is set to 0.
    """
    most = max(1, int(share * known.numel()))
    order = torch.where(known > 0, surprise.detach(), -torch.ones_like(surprise)).topk(most).indices
    annotated = known.sum()
    kept = torch.minimum((share * annotated).floor().clamp(min=1), annotated)
    rank = torch.arange(most, device=known.device, dtype=known.dtype)
    surprise, weight = surprise[order], weight[order]
    nothing = torch.zeros_like(weight)
    return torch.where(rank < kept, surprise, nothing), torch.where(rank < kept, weight, nothing)


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
    return part_of_mean(surprise.sum(), present.sum())


class CrossEntropyLoss(CountsLoss):
    """Cross-entropy; see `cross_entropy_loss`.

    Args:
        class_weights: Weight of each class, background first; None for equal ones.
        label_smoothing: Share of the label that is spread evenly over the classes.
        top_k: Share of the annotated voxels that is kept, those that cost most; None for all.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Raises:
        UsageError: A weight is negative, or all are zero; a share lies outside its range.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        *,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        top_k: float | None = None,
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
        if not 0 <= label_smoothing < 1:
            raise UsageError(
                "label smoothing is a share",
                where="loss.label_smoothing",
                why=f"{label_smoothing} lies outside [0, 1)",
                mend="loss.label_smoothing=0.1",
            )
        if top_k is not None and not 0 < top_k <= 1:
            raise UsageError(
                "top_k is the share of the voxels that is kept",
                where="loss.top_k",
                why=f"{top_k} lies outside (0, 1]",
                mend="loss.top_k=0.1 for the hardest tenth",
            )
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        # A setting that moves with the module, not something learnt: it stays out of the checkpoint.
        self.register_buffer("class_weights", weights, persistent=False)
        self.label_smoothing = label_smoothing
        self.top_k = top_k
        self.activation: Literal["softmax", "sigmoid"] = activation

    @property
    def shares_counts(self) -> bool:
        """Not where voxels are told apart, or the true class is not all that counts."""
        plain = self.label_smoothing == 0 and self.top_k is None
        return plain and type(self).forward is CrossEntropyLoss.forward

    def forward(self, logits: Logits, target: Target) -> Float[Tensor, ""]:
        """Scalar >= 0."""
        return cross_entropy_loss(
            logits,
            target.label,
            class_weights=self.class_weights,
            label_smoothing=self.label_smoothing,
            top_k=self.top_k,
            activation=self.activation,
        )

    def of_counts(self, counts: SoftCounts) -> Float[Tensor, ""]:
        """Scalar >= 0."""
        return _mean_surprise(counts, class_weights=self.class_weights, activation=self.activation)
