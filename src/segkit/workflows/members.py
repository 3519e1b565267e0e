"""One trained run, or several as one model: the mean of what they say of a voxel decides it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from segkit.data.store import Store
from segkit.evaluation import CaseResult, EvaluationSettings, evaluate_members
from segkit.evaluation.native import Average
from segkit.types import Case, PreparedCase
from segkit.workflows.loading import TrainedRun
from segkit.workflows.provenance import Model


@dataclass(frozen=True)
class Members:
    """What `evaluate` scores.

    Args:
        runs: At least one; of several the labels, channels and axes are the same, plans may differ.
        average: What of several runs is averaged.
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
        return tuple(Model(run.directory.name, run.roles) for run in self.runs)

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
        """The case predicted and counted on its own voxels.

        Args:
            prepared: See `prepared`.
            settings: Whether lesions are matched, and by which rule.
        """
        return evaluate_members([run.predictor for run in self.runs], prepared, settings, average=self.average)
