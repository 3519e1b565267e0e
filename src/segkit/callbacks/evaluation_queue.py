"""One evaluation at work in a process of its own, at most one waiting; neither ever holds up the training.

The process may crash, be killed, hang or be slow: every way of failing ends in a warning that names the step, how it
ended and its log. A newer checkpoint takes the place of one that waits.
"""

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from segkit.runs.evaluations import CASES, QUEUE, Evaluation, log_of, result_of
from segkit.runs.files import write_json

FAILURES = 3
"""After so many failures in a row the warning becomes an error message."""
_REAP_S = 5.0
_logger = logging.getLogger(__name__)


class EvaluationQueue:
    """Starts, watches and ends the processes.

    Args:
        folder: Where results, logs and the state of the queue lie; made here.
        command: The process for the checkpoint of a step: ends with 0 once it has written its `Evaluation`.
        timeout_s: Longest time of one evaluation, s.
    """

    def __init__(self, folder: Path, command: Callable[[int], Sequence[str]], *, timeout_s: float) -> None:
        self.folder, self.command, self.timeout_s = Path(folder), command, timeout_s
        self.running: int | None = None
        self.waiting: int | None = None
        self.failures = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0

    @property
    def leased(self) -> frozenset[int]:
        """Steps of the checkpoints that must stay."""
        return frozenset(step for step in (self.running, self.waiting) if step is not None)

    def submit(self, step: int) -> None:
        """Evaluate the checkpoint of `step`: now, or after the one at work."""
        if step in self.leased:
            return
        if self.waiting is not None:
            _logger.warning(
                "The evaluation of step %d is left out: that of step %d still runs, and step %d is newer.",
                self.waiting,
                self.running,
                step,
            )
        self.waiting = step
        self._next()

    def poll(self) -> Evaluation | None:
        """The result of an evaluation that has ended well since the last call; starts the next one. Returns at once."""
        if self._process is None or self.running is None:
            return None
        code = self._process.poll()
        if code is None and time.monotonic() - self._started < self.timeout_s:
            return None
        step, result = self.running, None
        if code is None:
            self._end_process()
            self._failed(step, f"it took longer than validation.timeout_s={self.timeout_s:g} and was ended")
        elif code != 0:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"left with exit code {code}"
            self._failed(step, f"it {how}")
        else:
            result = self._result(step)
        self._process = self.running = None
        self._next()
        return result

    def close(self) -> None:
        """End what runs, forget what waits, and leave nothing but the logs of what failed."""
        self._end_process()
        self._process = self.running = self.waiting = None
        with contextlib.suppress(OSError):
            (self.folder / QUEUE).unlink(missing_ok=True)
            (self.folder / CASES).unlink(missing_ok=True)
            self.folder.rmdir()

    def _next(self) -> None:
        if self._process is None and self.waiting is not None:
            step, self.waiting = self.waiting, None
            try:
                self._start(step)
            except OSError as error:  # no memory for a process, no room for its log
                self._failed(step, f"it could not be started: {error}")
        self._say()

    def _start(self, step: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        result_of(self.folder, step).unlink(missing_ok=True)
        with log_of(self.folder, step).open("wb") as log:
            self._process = subprocess.Popen(
                list(self.command(step)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )
        self.running, self._started = step, time.monotonic()

    def _end_process(self) -> None:
        """Kill the process and what it may have started."""
        if self._process is None or self._process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        try:
            self._process.wait(_REAP_S)
        except subprocess.TimeoutExpired:  # stuck in the kernel; it is gone when that lets it go
            _logger.warning("The evaluation process %d does not end.", self._process.pid)

    def _result(self, step: int) -> Evaluation | None:
        try:
            found = Evaluation.read(self.folder, step)
        except (OSError, ValueError) as error:
            self._failed(step, f"its result cannot be read: {error}")
            return None
        self.failures = 0
        return found

    def _failed(self, step: int, how: str) -> None:
        self.failures += 1
        log = log_of(self.folder, step)
        if self.failures < FAILURES:
            _logger.warning("The evaluation of step %d failed: %s; its output: %s. Training goes on.", step, how, log)
        else:
            _logger.error(
                "%d EVALUATIONS IN A ROW FAILED, the last of step %d: %s; its output: %s. Training goes on without "
                "scores: nothing is selected and nothing stops early until one succeeds; validation.where=here "
                "validates in the training process.",
                self.failures,
                step,
                how,
                log,
            )

    def _say(self) -> None:
        """Tell `status`; a full disk is no reason to do anything else."""
        state = {"running": self.running, "waiting": self.waiting}
        with contextlib.suppress(OSError):
            if self.leased:
                write_json(self.folder / QUEUE, state)
            else:
                (self.folder / QUEUE).unlink(missing_ok=True)
