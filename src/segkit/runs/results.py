"""What the folders of a run and of a sweep have in common: a name, tables of evaluations, a page, a copy in MLflow."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ResultsDirectory:
    """Paths that verbs write results to after the training.

    Args:
        path: The folder; made absolute. Need not exist yet.
    """

    path: Path

    def __post_init__(self) -> None:
        """Make the path absolute once, so that a later chdir moves nothing."""
        object.__setattr__(self, "path", Path(self.path).expanduser().absolute())

    @property
    def name(self) -> str:
        """The folder's."""
        return self.path.name

    @property
    def evaluation(self) -> Path:
        """Folder of the tables of evaluations, by subset; of a sweep `test` out of fold, `held_out` by the ensemble."""
        return self.path / "evaluation"

    @property
    def report(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @property
    def tracking(self) -> Path:
        """What MLflow is told beside the files, the identity of the training or the sweep first of all."""
        return self.path / "tracking.json"

    @property
    def mlflow(self) -> Path:
        """Which MLflow run is the copy; of a sweep, the parent of those of its runs."""
        return self.path / "mlflow.json"
