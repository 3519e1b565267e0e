"""Weighted sums of losses: loss = sum of w_i loss_i."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from segkit.errors import UsageError
from segkit.losses.loss import Loss
from segkit.losses.soft_counts import Activation, CountsLoss, SoftCounts, soft_counts
from segkit.types import Logits, Target


class WeightedSum(Loss):
    """Sum of named losses, each with its weight.

    A term of weight 0 is not computed, and what it needs is not asked for. Terms that are functions of soft counts
    share these: one pass over the voxels for all of them.

    Args:
        terms: Losses by name.
        weights: Weight of each, by the same names.

    Raises:
        UsageError: Names differ, a weight is negative, or all are 0.
    """

    def __init__(self, terms: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        if set(terms) != set(weights):
            raise UsageError(
                "terms and weights of the loss have different names",
                where="loss.terms, loss.weights",
                why=f"terms {sorted(terms)}, weights {sorted(weights)}",
                mend="give each term one weight",
            )
        if min(weights.values(), default=0) < 0 or not any(weights.values()):
            raise UsageError(
                "weights of the loss must be at least 0 and not all 0",
                where="loss.weights",
                why=f"found {dict(weights)}",
                mend=f"loss.weights.{next(iter(weights), 'dice')}=1",
            )
        self.terms = nn.ModuleDict(terms)
        self.weights = {name: float(weights[name]) for name in terms}
        active = [term for name, term in terms.items() if self.weights[name] > 0]
        self.needs = frozenset[str]().union(*(getattr(term, "needs", frozenset()) for term in active))

    def forward(self, logits: Logits, target: Target) -> Float[Tensor, ""]:
        """Weighted sum of the terms."""
        shared: dict[Activation, SoftCounts] = {}
        losses: list[Tensor] = []
        for name, term in self.terms.items():
            if not self.weights[name]:
                continue
            # A subclass with a forward of its own may do more than count.
            if isinstance(term, CountsLoss) and type(term).forward is CountsLoss.forward:
                if term.activation not in shared:
                    shared[term.activation] = soft_counts(logits, target.label, activation=term.activation)
                loss = term.of_counts(shared[term.activation])
            else:
                loss = term(logits, target)
            losses.append(self.weights[name] * loss)
        total: Tensor = sum(losses[1:], start=losses[0])
        return total
