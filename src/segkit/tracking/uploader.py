"""Work for MLflow in a thread of its own: training neither waits for it nor fails with it.

The journal holds everything, so nothing is lost when a call fails: the next one that works brings the copy up to
date. The first failure is a warning, the following ones are counted.
"""

import importlib
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit.runs.directory import RunDirectory

if TYPE_CHECKING:
    from segkit.tracking.mlflow import Ending, MlflowCopy

_logger = logging.getLogger(__name__)


class Uploader:
    """Keeps an `MlflowCopy` up to date from a thread, in which MLflow is also imported (it takes seconds).

    Args:
        run: The run folder.
        store: Path of the sqlite file, or a server's address.
        experiment: MLflow's experiment.
        parent: MLflow run id of the sweep that this run belongs to.
    """

    def __init__(
        self, run: RunDirectory, *, store: str | Path, experiment: str = "segkit", parent: str | None = None
    ) -> None:
        self._settings: dict[str, Any] = {"store": store, "experiment": experiment, "parent": parent}
        self._run = run
        self._begun: Callable[[MlflowCopy], object] | None = None
        self._copy: MlflowCopy | None = None
        self._jobs: queue.SimpleQueue[Callable[[MlflowCopy], object] | None] = queue.SimpleQueue()
        self._syncing = threading.Event()
        self.failures = 0
        self._thread = threading.Thread(target=self._work, name="segkit-mlflow", daemon=True)
        self._thread.start()

    def begin(self, config: Mapping[str, Any], *, tags: Mapping[str, str] | None = None) -> None:
        """See `MlflowCopy.begin`; done again with the first call that works, if the store is not there yet."""
        self._begun = lambda copy: copy.begin(config, tags=tags)
        self.do(_nothing)

    def do(self, job: Callable[["MlflowCopy"], object]) -> None:
        """Queue any work on the copy, for instance `lambda copy: copy.artifact(path)`."""
        self._jobs.put(job)

    def sync(self) -> None:
        """Queue an update from the journals, unless one is waiting already."""
        if not self._syncing.is_set():
            self._syncing.set()
            self.do(self._sync)

    def end(self, status: "Ending", *, reason: str = "", timeout_s: float = 60.0) -> bool:
        """Queue the end, wait for all work at most `timeout_s`, and stop the thread.

        Returns:
            Whether the copy is complete.
        """
        self.do(lambda copy: copy.end(status, reason=reason))
        self._jobs.put(None)
        self._thread.join(timeout_s)
        complete = not self._thread.is_alive() and self.failures == 0
        if not complete:
            _logger.warning("MLflow's copy of the run is not complete; the run folder is.")
        return complete

    def _sync(self, copy: "MlflowCopy") -> None:
        self._syncing.clear()
        copy.sync()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                if self._copy is None:
                    module = importlib.import_module("segkit.tracking.mlflow")
                    self._copy = module.MlflowCopy(self._run, **self._settings)
                if self._begun is not None:
                    self._begun(self._copy)
                    self._begun = None
                assert self._copy is not None
                job(self._copy)
            except Exception as error:
                # The one place that lets training go on whatever happens: the copy can be made again.
                self._syncing.clear()
                self.failures += 1
                if self.failures == 1:
                    _logger.warning(
                        "MLflow: %s: %s. Training goes on; the journal has all.", type(error).__name__, error
                    )
                else:
                    _logger.debug("MLflow, failure %d", self.failures, exc_info=True)


def _nothing(copy: "MlflowCopy") -> None:
    del copy
