"""Focal loss: cross-entropy in which a voxel counts less the more certain it already is.

    softmax:  loss = mean over voxels of  a_y (1 - p_y)^g (-log p_y)                y the class of the voxel
    sigmoid:  loss = mean over voxels and classes of  a_t (1 - q)^g (-log q)        q = p_k in class k, else 1 - p_k

Means run over the annotated voxels of all ranks together; label -1 is left out. g = 0 without a is cross-entropy.

`alpha` null: a = 1. A number a: a for the foreground classes (sigmoid: for voxels of the class) and 1 - a for the
background (sigmoid: for all others); so 0.25, the number of the paper on detection, makes foreground count less. A
list: a_k by class, background first (sigmoid: for the terms of class k).

Edge cases: where everything is ignored the loss is 0 with a gradient of 0. All is computed from logits, with
(1 - p)^g = exp(g log(1 - p)) and log(1 - p_y) = logsumexp of the other classes - logsumexp of all (sigmoid: logsigmoid
of -x), so no probability is clamped: a clamp at 1 - 1e-6 is 1 in half precision, where 0 log 0 then is NaN.

Reference:
    Lin et al., Focal loss for dense object detection (2017), arXiv 1708.02002.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from segkit.errors import UsageError
from segkit.losses.loss import Loss
from segkit.losses.voxels import by_class, voxels
from segkit.ops.ranks import part_of_mean
from segkit.types import LabelBatch, Logits, Target


def focal_loss(
    logits: Logits,
    label: LabelBatch,
    *,
    gamma: float = 2.0,
    alpha: float | Float[Tensor, "K"] | None = None,
    activation: Literal["softmax", "sigmoid"] = "softmax",
) -> Float[Tensor, ""]:
    """Mean focal loss of the annotated voxels.

    Args:
        logits: (B, K, *S), of at least two classes under softmax.
        label: (B, 1, *S) class indices; -1 is ignored.
        gamma: g >= 0; 0 for cross-entropy.
        alpha: Weight of the foreground against the background, one of each class, or None for equal ones.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Returns:
        Scalar >= 0, float32 (float64 for float64 logits). Of several ranks each has its part; their mean is the loss.
    """
    with torch.autocast(logits.device.type, enabled=False):
        x, truth, known = voxels(logits, label)
        annotated = known.sum()
        if activation == "softmax":
            log_p = x.log_softmax(1)
            others = log_p.masked_fill(truth > 0, -torch.inf).logsumexp(1, keepdim=True)
            losses = -(truth * _balance_of_classes(alpha, x) * log_p) * (gamma * others).exp()
        else:
            z = torch.where(truth > 0, x, -x)
            losses = -F.logsigmoid(z) * (gamma * F.logsigmoid(-z)).exp() * _balance_of_terms(alpha, truth) * known
            annotated = annotated * x.shape[1]
        return part_of_mean(losses.sum(), annotated)


def _balance_of_classes(alpha: float | Tensor | None, x: Tensor) -> Tensor | float:
    if alpha is None or isinstance(alpha, Tensor):
        return 1.0 if alpha is None else by_class(alpha, x)
    of_class = torch.full((x.shape[1],), alpha, device=x.device, dtype=x.dtype)
    of_class[0] = 1 - alpha
    return by_class(of_class, x)


def _balance_of_terms(alpha: float | Tensor | None, truth: Tensor) -> Tensor | float:
    if alpha is None or isinstance(alpha, Tensor):
        return 1.0 if alpha is None else by_class(alpha, truth)
    return truth * alpha + (1 - truth) * (1 - alpha)


class FocalLoss(Loss):
    """Focal loss; see `focal_loss`.

    Args:
        gamma: How fast certain voxels stop to count; 0 for cross-entropy.
        alpha: Weight of the foreground against the background, one of each class, background first, or None.
        activation: `softmax` over classes, or `sigmoid` for each class against the rest.

    Raises:
        UsageError: `gamma` is negative; `alpha` is no number in (0, 1), or no list of weights.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        alpha: float | Sequence[float] | None = None,
        activation: Literal["softmax", "sigmoid"] = "softmax",
    ) -> None:
        super().__init__()
        if gamma < 0:
            raise UsageError("gamma must be at least 0", where="loss.gamma", why=f"found {gamma}", mend="loss.gamma=2")
        self.gamma = gamma
        self.balance: float | None = None
        weights: Tensor | None = None
        if isinstance(alpha, int | float):
            if not 0 < alpha < 1:
                raise UsageError(
                    "one number for alpha weighs foreground against background",
                    where="loss.alpha",
                    why=f"{alpha} lies outside (0, 1)",
                    mend="loss.alpha=0.75, or null",
                )
            self.balance = float(alpha)
        elif alpha is not None:
            if min(alpha, default=0) < 0 or not any(alpha):
                raise UsageError(
                    "weights of the classes must be at least 0 and not all 0",
                    where="loss.alpha",
                    why=f"found {list(alpha)}",
                    mend="loss.alpha=null",
                )
            weights = torch.tensor(alpha, dtype=torch.float32)
        # A setting that moves with the module, not something learnt: it stays out of the checkpoint.
        self.register_buffer("class_weights", weights, persistent=False)
        self.activation: Literal["softmax", "sigmoid"] = activation

    def forward(self, logits: Logits, target: Target) -> Float[Tensor, ""]:
        """Scalar >= 0."""
        alpha = self.balance if self.class_weights is None else self.class_weights
        return focal_loss(logits, target.label, gamma=self.gamma, alpha=alpha, activation=self.activation)
