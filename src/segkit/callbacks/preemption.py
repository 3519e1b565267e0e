"""SIGINT, SIGTERM and SIGUSR1 end a training with a checkpoint instead of losing its epoch.

The handler sets a flag and returns; `Checkpointing` reads it at the next border of a step, the module in validation
before the next pass of the network. Lightning's own handler broadcasts from within the handler and can hang. A second
signal ends the process at once, by the system's default.
"""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # documented, but not in its list of exports

from segkit.ops.ranks import world_size

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """The wish that the training shall stop with a checkpoint, and why; `None` where there is none.

    `ask` only sets a field, so it is safe in a signal handler. `poll` also hears what other ranks were asked: through
    the key-value store that started them and not through a collective, because in validation each rank is at another
    image.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._store: TCPStore | None = None
        self._key = ""
        self._told = False

    def ask(self, reason: str) -> None:
        """Ask for the end."""
        self.reason = self.reason or reason

    def connect(self) -> None:
        """Reach the other ranks' store, where there are others."""
        if world_size() > 1 and "MASTER_PORT" in os.environ:
            self._store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
            self._key = f"segkit/stop/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"

    def poll(self) -> bool:
        """Whether this process or another rank was asked."""
        if self._store is not None and not self._told:
            if self.reason is not None:
                self._store.set(self._key, self.reason)
                self._told = True
            elif self._store.check([self._key]):
                self.reason, self._told = self._store.get(self._key).decode(), True
        return self.reason is not None


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
            # Lightning's handler being gone, its question to all ranks at every batch has but one answer, for which
            # each would wait for its GPU.
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]

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


def _nothing() -> None:
    pass
