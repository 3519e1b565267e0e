"""Work for MLflow in a thread of its own: training neither waits for it nor fails with it.

The run folder holds everything, so nothing is lost when a request fails: the thread tries again, later and later,
and each time from what is in the folder. What is still missing at the end `segkit sync` brings. The first failure of
an outage is a warning, the following ones are counted.
"""

import contextlib
import importlib
import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segkit.errors import SegkitError
from segkit.runs.directory import RunDirectory
from segkit.tracking.brief import BriefRequests
from segkit.tracking.record import keep_alone

if TYPE_CHECKING:
    from segkit.tracking.folder import Ending
    from segkit.tracking.mlflow import MlflowCopy

_logger = logging.getLogger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_LAST_TRY_S = 15.0


class Uploader:
    """Keeps an `MlflowCopy` up to date from a thread, in which MLflow is also imported (it takes seconds).

    Args:
        run: The run folder.
        store: Path of the sqlite file, or a server's address.
        experiment: MLflow's experiment.
        wait_s: Longest time that the end of the run waits, s.
    """

    def __init__(
        self, run: RunDirectory, *, store: str | Path, experiment: str = "segkit", wait_s: float = 60.0
    ) -> None:
        self._settings: dict[str, Any] = {"store": store, "experiment": experiment}
        self._run, self._wait_s = run, wait_s
        self._copy: MlflowCopy | None = None
        self._wake = threading.Condition()
        self._begun = self._due = self._complete = False
        self._points_due = False
        self._ending: tuple[Ending, str] | None = None
        self.failures = self._in_a_row = 0
        self._brief: BriefRequests | None = None
        self._thread = threading.Thread(target=self._work, name="segkit-mlflow", daemon=True)

    def begin(self) -> None:
        """Ask for the beginning of a life; see `MlflowCopy.begin`. Returns at once."""
        self._start()
        with self._wake:
            self._begun = self._due = True
            self._wake.notify()

    def sync(self) -> None:
        """Ask for an update from the journals. Returns at once."""
        self._start()
        with self._wake:
            self._points_due = self._due = True
            self._wake.notify()

    def end(self, status: "Ending", *, reason: str = "", timeout_s: float | None = None) -> bool:
        """Ask for the end, wait for it, and stop the thread.

        Args:
            status: How the life ended.
            reason: Why.
            timeout_s: Longest wait, s; `wait_s` if not given, and short where the store was failing already.

        Returns:
            Whether the copy is complete.
        """
        self._start()
        with self._wake:
            self._ending = (status, reason)
            self._wake.notify()
            failing = self._in_a_row > 0
        limit = self._wait_s if timeout_s is None else timeout_s
        self._thread.join(min(limit, _LAST_TRY_S) if failing else limit)
        if self._brief is not None and not self._thread.is_alive():  # else its last requests would wait for minutes
            self._brief.end()
        if not self._complete:
            _logger.warning(
                "MLflow's copy of the run is not complete; the run folder is. To bring it up to date: "
                "python -m segkit.sync run=%s",
                self._run.path,
            )
        return self._complete

    def _start(self) -> None:
        """Only now: a run that fails before its beginning leaves no thread."""
        if self._brief is None:
            self._brief = BriefRequests()
            self._thread.start()

    def _work(self) -> None:
        with contextlib.ExitStack() as stack:
            locked = False
            while True:
                ending = self._next()
                try:
                    if not locked:
                        stack.enter_context(keep_alone(self._run.path))
                        locked = True
                    self._pass(ending)
                except Exception as error:
                    # The one place that lets training go on whatever happens: the copy can be made again.
                    self._failed(error)
                else:
                    if self._in_a_row:
                        _logger.warning("MLflow answers again; its copy of the run is up to date.")
                    self._in_a_row = 0
                if ending is not None:
                    return

    def _next(self) -> "tuple[Ending, str] | None":
        """Wait until something is to be done; after failures, so long as the store is given to recover."""
        with self._wake:
            self._wake.wait_for(lambda: self._due or self._ending is not None)
            if self._in_a_row:
                pause = min(_FIRST_PAUSE_S * 2 ** (self._in_a_row - 1), _LONGEST_PAUSE_S)
                self._wake.wait_for(lambda: self._ending is not None, timeout=pause)
            self._due = False
            return self._ending

    def _pass(self, ending: "tuple[Ending, str] | None") -> None:
        """Everything that is to be done, in its order."""
        if self._copy is None:
            module = importlib.import_module("segkit.tracking.mlflow")
            self._copy = module.MlflowCopy(self._run, **self._settings)
            self._described = False
        assert self._copy is not None
        if self._begun and not self._described:
            self._copy.begin()
            self._described = True
        if ending is None:
            if self._points_due:  # not before: until then the journals are being cut at the checkpoint
                self._copy.sync()
            return
        status, reason = ending
        self._copy.finish(status, reason=reason)
        self._complete = True

    def _failed(self, error: Exception) -> None:
        self._copy = None  # the store may be another one when it comes back
        self.failures += 1
        self._in_a_row += 1
        with self._wake:
            self._due = True
        if self._in_a_row == 1:
            text = str(error) if isinstance(error, SegkitError) else f"{type(error).__name__}: {error}"
            _logger.warning("MLflow: %s\nTraining goes on; the run folder has all.", text)
        else:
            _logger.debug("MLflow, failure %d", self.failures, exc_info=True)
