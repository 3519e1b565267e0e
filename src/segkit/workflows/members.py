"""One trained run, or several as one model: the mean of what they say of a voxel decides it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from segkit.data.store import Store
from segkit.errors import UsageError
from segkit.evaluation import CaseResult, EvaluationSettings, evaluate_streams
from segkit.evaluation.native import Average
from segkit.types import Case, PreparedCase
from segkit.workflows.loading import TrainedRun, streams
from segkit.workflows.provenance import Model


def require_alike(
    runs: Sequence[TrainedRun], told: Mapping[str, Callable[[TrainedRun], object]], *, so: str, mend: str = ""
) -> None:
    """Refuse runs that differ in something that they must have in common.

    Args:
        runs: At least one.
        told: What is compared, by the name it has in the message.
        so: What follows from a difference.
        mend: What helps.

    Raises:
        UsageError: Naming what differs, two runs, and what each has.
    """
    first = runs[0]
    for other in runs[1:]:
        for what, of in told.items():
            if of(other) != of(first):
                raise UsageError(
                    f"the runs differ in their {what}: {so}",
                    where=f"{first.directory.name}, {other.directory.name}",
                    why=f"{of(first)} against {of(other)}",
                    mend=mend,
                )


def require_compatible(runs: Sequence[TrainedRun]) -> None:
    """Refuse to average models that mean different things.

    Raises:
        UsageError: Labels, channels or number of axes differ.
    """
    told = {what: partial(_of_plan, what) for what in ("labels", "channels", "dimensions")}
    require_alike(runs, told, so="they cannot be averaged")


def _of_plan(what: str, run: TrainedRun) -> object:
    return getattr(run.plan, what)


@dataclass(frozen=True)
class Members:
    """What `evaluate` scores.

    Args:
        runs: At least one; of several the labels, channels and axes are the same, plans may differ.
        average: What is resampled, and of several runs averaged.
    """

    runs: tuple[TrainedRun, ...]
    average: Average = "logits"

    @property
    def first(self) -> TrainedRun:
        """The run from which is read what all of them share."""
        return self.runs[0]

    @property
    def models(self) -> tuple[Model, ...]:
        """Who was in which role, by run."""
        return tuple(run.provenance for run in self.runs)

    def mirrored(self) -> "Members":
        """The same networks, each averaging over the flips of its own training."""
        flipped = (replace(run, predictor=run.predictor.mirrored(run.plan.flip_axes)) for run in self.runs)
        return replace(self, runs=tuple(flipped))

    def prepared(self, case: Case, store: Store) -> tuple[PreparedCase, ...]:
        """The case as the plan of each run wants it.

        Raises:
            DataError: A file that cannot be read, or that does not fit the model.
        """
        return tuple(store.get(case, run.plan) for run in self.runs)

    def result(self, prepared: Sequence[PreparedCase], settings: EvaluationSettings) -> CaseResult:
        """The case predicted and counted on its own voxels, plane by plane, as `predict` does it.

        Args:
            prepared: See `prepared`.
            settings: Whether lesions are matched, and by which rule.
        """
        return evaluate_streams(streams(self.runs, prepared), prepared[0], settings, average=self.average)
