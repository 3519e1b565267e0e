"""SIGINT, SIGTERM and SIGUSR1 end a training with a checkpoint instead of losing its epoch.

The handler sets a flag and returns; `Checkpointing` reads it at the next border of a step. Lightning's own handler
broadcasts from within the handler and can hang. A second signal ends the process at once, by the system's default.
"""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Preemption(Callback):
    """Hands signals to `ask`, while training runs.

    Args:
        ask: Called with the reason; must be safe in a signal handler.
    """

    def __init__(self, ask: Callable[[str], None]) -> None:
        self.ask = ask
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Take the signals over from Lightning, which has just taken them."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Give them back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        self.ask(f"signal {signal.Signals(number).name}")
