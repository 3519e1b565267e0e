"""The run folder: one place for everything of one training, with fixed names.

runs/NAME/
    config.yaml      the resolved configuration
    plan.json        decisions with their reasons
    split.json       roles of the cases
    weights.txt      what became of each tensor of the file that the network began with
    ancestors.json   the runs whose weights it began with, and whom they had seen
    findings.json    warnings and notes on the data
    budget.json      what trainer.budget was made into
    env.json         versions, host, git
    checkpoints/     step-00001234/ ..., index.json, last.json, best.json
    metrics.jsonl    what was measured, deterministic values only
    timings.jsonl    clock, throughput, memory
    per_case.csv     scores of the selected checkpoint
    calibration.json a temperature for its probabilities, and what it is worth
    postprocessing.json rules for its masks, and what they are worth
    overlays/        pictures
    evaluations/     while validation runs apart from the training
    report.html
    STATUS.json      state of the run
    mlflow.json      which MLflow runs are its copies
    tracking.json    what of it goes to MLflow beside the journals
    mlflow.lock      held by who brings a copy up to date
    nonfinite/       the first batches whose step was left out
    evaluations/     validations that are made apart from the training
    profile/         where the time of a step goes
    ranks/           what several ranks are told and tell, while they train
    log.txt
    run.lock
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from segkit.errors import StorageError, UsageError
from segkit.runs.environment import environment
from segkit.runs.files import read_json, read_yaml, write_json, write_yaml
from segkit.runs.lock import Holder, holder, lock
from segkit.runs.results import ResultsDirectory

State = Literal["running", "finished", "failed", "preempted"]


@dataclass(frozen=True)
class RunDirectory(ResultsDirectory):
    """Paths of a run and the few ways to change it.

    Args:
        path: The folder; made absolute. Need not exist yet.
    """

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def plan(self) -> Path:
        """Decisions, with reasons."""
        return self.path / "plan.json"

    @property
    def split(self) -> Path:
        """Roles of the cases."""
        return self.path / "split.json"

    @property
    def weights(self) -> Path:
        """What became of each tensor of the file that the network began with."""
        return self.path / "weights.txt"

    @property
    def ancestors(self) -> Path:
        """The runs whose weights the network began with, and the roles of their cases."""
        return self.path / "ancestors.json"

    @property
    def findings(self) -> Path:
        """Warnings and notes on the data, as of the latest life."""
        return self.path / "findings.json"

    @property
    def budget(self) -> Path:
        """What `trainer.budget` was made into."""
        return self.path / "budget.json"

    @property
    def env(self) -> Path:
        """Versions, host, git state of the latest life."""
        return self.path / "env.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """Journal of deterministic values."""
        return self.path / "metrics.jsonl"

    @property
    def timings(self) -> Path:
        """Journal of clock, throughput and memory."""
        return self.path / "timings.jsonl"

    @property
    def per_case(self) -> Path:
        """Scores of the tuning cases by the selected checkpoint."""
        return self.path / "per_case.csv"

    @property
    def predictions(self) -> Path:
        """Folder of the tuning cases' predictions by the selected checkpoint."""
        return self.path / "predictions"

    @property
    def profile(self) -> Path:
        """Folder of the table and the trace of `trainer.profiler=step`."""
        return self.path / "profile"

    @property
    def overlays(self) -> Path:
        """Folder of the pictures."""
        return self.path / "overlays"

    @property
    def curves(self) -> Path:
        """Picture of the training curves."""
        return self.path / "curves.png"

    @property
    def status(self) -> Path:
        """State of the run."""
        return self.path / "STATUS.json"

    @property
    def log(self) -> Path:
        """Log of all lives."""
        return self.path / "log.txt"

    @property
    def ranks(self) -> Path:
        """Folder of what several ranks are told and tell; only while they train, and after one has failed."""
        return self.path / "ranks"

    @property
    def evaluations(self) -> Path:
        """Folder of what evaluations apart from the training are told and tell; see `runs.evaluations`."""
        return self.path / "evaluations"

    @property
    def lock_file(self) -> Path:
        """The file that the holder has locked."""
        return self.path / "run.lock"

    @property
    def exists(self) -> bool:
        """Whether a run was begun here: its configuration is written first."""
        return self.config.is_file()

    def create(self) -> "RunDirectory":
        """Make the folder and its subfolders where they are missing.

        Raises:
            StorageError: The folder cannot be made.
        """
        try:
            for folder in (self.path, self.checkpoints, self.overlays):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                "The folder of the run cannot be made.",
                where=str(self.path),
                why=str(error),
                mend="paths.runs=<a folder that you may write to>",
            ) from error
        return self

    def lock(self) -> AbstractContextManager[Holder]:
        """Hold the run for the length of a `with` block.

        Raises:
            RunInUseError: Another process holds it.
        """
        return lock(self.lock_file)

    def holder(self) -> Holder | None:
        """The process that holds the run now."""
        return holder(self.lock_file)

    def save_config(self, config: Mapping[str, Any]) -> None:
        """Write the resolved configuration."""
        write_yaml(self.config, dict(config))

    def load_config(self) -> dict[str, Any]:
        """Read the configuration that the run was begun with.

        Raises:
            UsageError: There is none, or it cannot be read.
        """
        try:
            return read_yaml(self.config)
        except (OSError, ValueError) as error:
            raise UsageError(
                "The folder is no run, or its configuration cannot be read.",
                where=str(self.config),
                why=str(error),
                mend="name the folder that `train` printed: run=<folder>",
            ) from error

    def save_environment(self) -> dict[str, Any]:
        """Write and return versions, host and git state of this life."""
        facts = environment()
        write_json(self.env, facts)
        return facts

    def save_status(self, state: State, **facts: object) -> None:
        """Write STATUS.json: `state` and whatever is worth knowing beside it (reason, epoch, score)."""
        write_json(self.status, {"state": state, **facts})

    def load_status(self) -> dict[str, Any]:
        """Read STATUS.json; empty where there is none or it is damaged."""
        try:
            return read_json(self.status)
        except (OSError, ValueError):
            return {}
