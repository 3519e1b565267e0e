"""Deep supervision: the same loss on the logits of several resolutions.

    loss = sum over levels i of w_i loss(logits_i, target at level i),   w_i = 0.5^i / sum of 0.5^j

Levels are those that exist: a network that builds fewer heads gets the same ratios among them.

Reference:
    Lee et al., Deeply-Supervised Nets (2015); weights as in nnU-Net, where the coarsest head has weight 0 and is here
    not built.
"""

from dataclasses import fields, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from segkit.losses.loss import Loss
from segkit.types import Target

OPTIONAL_FIELDS = frozenset(field.name for field in fields(Target)) - {"label", "spacing", "num_instances"}


def level_weights(levels: int) -> tuple[float, ...]:
    """0.5^i, normalised to sum 1, finest first."""
    weights = [0.5**level for level in range(levels)]
    return tuple(weight / sum(weights) for weight in weights)


class DeepSupervision(Loss):
    """A loss over one tensor of logits or over a list of them, finest first.

    Args:
        loss: The loss of one level.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss
        self.needs = frozenset(getattr(loss, "needs", frozenset()))
        self.usable_alone = bool(getattr(loss, "usable_alone", True))
        self.waits = bool(getattr(loss, "waits", False))

    def forward(self, logits: Tensor | list[Tensor], target: Target) -> Float[Tensor, ""]:
        """Scalar to minimise.

        Args:
            logits: (B, K, *S), or a list of them, finest first; each meets the target on its own grid.
            target: On the grid of the image.
        """
        if isinstance(logits, Tensor):
            logits = [logits]
        # Fields that nobody reads are not carried down the levels.
        unread: dict[str, Any] = dict.fromkeys(OPTIONAL_FIELDS - self.needs)
        target = replace(target, **unread)
        losses = [
            weight * self.loss(level, target.at_level(tuple(level.shape[2:])))
            for weight, level in zip(level_weights(len(logits)), logits, strict=True)
        ]
        total: Tensor = sum(losses[1:], start=losses[0])
        return total
