"""Weighted sums of losses: loss = sum of w_i(e) loss_i, e the epoch."""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from segkit.errors import UsageError
from segkit.losses.loss import Loss
from segkit.losses.soft_counts import Activation, CountsLoss, SoftCounts, soft_counts
from segkit.losses.weight_schedule import Points, WeightSchedule, constant, read_points
from segkit.types import Logits, Target


class WeightedSum(Loss):
    """Sum of named losses, each with its weight, which may change from epoch to epoch.

    A term of weight 0 is not computed in that epoch; what it needs is asked for only where it counts in some epoch.
    Terms that are functions of soft counts share these, also those of a sum within the sum: one pass over the voxels
    for all of them. A term that is None is left out.

    The sum may be used alone where in every epoch one term that counts may. It reads `epoch`, which the module that
    trains sets; the weights are a pure function of it, so nothing of this is part of a checkpoint.

    Args:
        terms: Losses by name.
        weights: Weight of each, by the same names.
        schedule: Weights that change, by name of the term: {epoch: weight}, linear between the epochs named, constant
            before the first and after the last. They take the place of the term's `weights`.

    Raises:
        UsageError: Names differ, a weight is negative, or in some epoch all are 0.
    """

    def __init__(
        self,
        terms: Mapping[str, nn.Module | None],
        weights: Mapping[str, float | int],
        schedule: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__()
        present = {name: term for name, term in terms.items() if term is not None}
        changing: dict[str, Points] = {
            name: read_points(points, where=f"loss.schedule.{name}")
            for name, points in (schedule or {}).items()
            if points is not None
        }
        _require_names(terms, present, weights, changing)
        if min(weights.values(), default=0) < 0:
            raise UsageError(
                "weights of the loss must be at least 0",
                where="loss.weights",
                why=f"found {dict(weights)}",
                mend=f"loss.weights.{min(weights, key=lambda name: weights[name])}=0",
            )
        self.terms = nn.ModuleDict(present)
        self.schedules: dict[str, WeightSchedule] = {
            name: WeightSchedule(changing[name]) if name in changing else constant(weights[name]) for name in present
        }
        epochs = range(1 + max((schedule.last for schedule in self.schedules.values()), default=0))
        counting = [[present[name] for name in present if self.schedules[name].at(epoch) > 0] for epoch in epochs]
        if not all(counting):
            idle = next(epoch for epoch, active in enumerate(counting) if not active)
            raise UsageError(
                "the weights of the loss are all 0" + (f" in epoch {idle}" if changing else ""),
                where="loss.weights, loss.schedule" if changing else "loss.weights",
                why=f"found {self.weights_at(idle)}",
                mend=f"loss.weights.{next(iter(present), 'dice')}=1",
            )
        ever = [present[name] for name in present if any(self.schedules[name].at(epoch) > 0 for epoch in epochs)]
        self.needs = frozenset[str]().union(*(getattr(term, "needs", frozenset()) for term in ever))
        self.waits = any(getattr(term, "waits", False) for term in ever)
        self.usable_alone = all(any(getattr(term, "usable_alone", True) for term in active) for active in counting)

    def weights_at(self, epoch: int) -> dict[str, float]:
        """Weight of each term in an epoch, the first being 0."""
        return {name: schedule.at(epoch) for name, schedule in self.schedules.items()}

    def forward(self, logits: Logits, target: Target) -> Float[Tensor, ""]:
        """Weighted sum of the terms."""
        return self._sum(logits, target, {})

    def _sum(self, logits: Logits, target: Target, shared: dict[Activation, SoftCounts]) -> Tensor:
        """The same with the soft counts that have already been made of these logits."""
        losses: list[Tensor] = []
        for name, weight in self.weights_at(self.epoch).items():
            if weight == 0:
                continue
            term = self.terms[name]
            if isinstance(term, CountsLoss) and term.shares_counts:
                if term.activation not in shared:
                    shared[term.activation] = soft_counts(logits, target.label, activation=term.activation)
                loss = term.of_counts(shared[term.activation])
            elif type(term) is WeightedSum:
                loss = term._sum(logits, target, shared)
            else:
                loss = term(logits, target)
            losses.append(weight * loss)
        total: Tensor = sum(losses[1:], start=losses[0])
        return total


def _require_names(
    terms: Mapping[str, nn.Module | None],
    present: Mapping[str, nn.Module],
    weights: Mapping[str, float | int],
    changing: Mapping[str, Points],
) -> None:
    """Every term that is there has one weight or a schedule, and nothing else has."""
    if taken := sorted(name for name in present if hasattr(nn.ModuleDict(), name)):
        raise UsageError(
            "a term of the loss needs another name",
            where=f"loss.terms.{taken[0]}",
            why=f"torch's modules have something called {taken[0]}",
            mend=f"loss.terms.my_{taken[0]}",
        )
    unweighted = present.keys() - weights.keys() - changing.keys()
    unknown = (weights.keys() | changing.keys()) - terms.keys()
    if present and not unweighted and not unknown:
        return
    found = f"terms {sorted(terms)}, weights {sorted(weights)}"
    raise UsageError(
        "terms and weights of the loss have different names" if present else "the loss has no terms",
        where="loss.terms, loss.weights" + (", loss.schedule" if changing else ""),
        why=found + (f", schedule {sorted(changing)}" if changing else ""),
        mend=" ".join(f"loss.weights.{name}=1" for name in sorted(unweighted))
        or ("give each term one weight" if present else "loss@loss.terms.dice=dice loss.weights.dice=1"),
    )
