"""What a training process is doing at each instant, told to whoever kills it; for use in a child, before its verb.

The file is written by `pwrite`, so it survives the kill and costs microseconds. Nothing here changes what is
computed; the longer writes only make it likelier that a kill falls into one.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.reliability.fork_server import verb

_WIDTH = 16


class Marker:
    """Writes the name of the innermost phase of the main thread into a file."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._stack = ["start"]
        self._write()

    def around(self, owner: object, name: str, phase: str) -> None:
        """Mark each call of a function or method."""
        original: Callable[..., Any] = getattr(owner, name)

        def marked(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return original(*args, **kwargs)
            self._stack.append(phase)
            self._write()
            try:
                return original(*args, **kwargs)
            finally:
                self._stack.pop()
                self._write()

        setattr(owner, name, marked)

    @property
    def phase(self) -> str:
        """The present one."""
        return self._stack[-1]

    def _write(self) -> None:
        os.pwrite(self._descriptor, self._stack[-1].ljust(_WIDTH).encode(), 0)


def phase_of(path: Path) -> str:
    """The phase that a process is in, or died in."""
    return path.read_text().strip() if path.exists() else ""


def marked_train(marker: Path, slow_write_s: float, *argv: str) -> int:
    """`train` with its phases marked, and every fsync within the write of a checkpoint longer."""
    from segkit.callbacks import checkpointing
    from segkit.module.segmentation import SegmentationModule
    from segkit.tracking.journal import Journal
    from segkit.workflows import train

    marks = Marker(marker)
    marks.around(train.RunDirectory, "save_status", "status")
    marks.around(train.Journal, "cut", "cut")
    marks.around(train, "prepare_dataset", "preparing")
    marks.around(train._Life, "_fit", "fit")
    marks.around(train, "draw_run_curves", "drawing")
    marks.around(SegmentationModule, "training_step", "step")
    marks.around(SegmentationModule, "validation_step", "validation")
    marks.around(Journal, "metrics", "journal")
    marks.around(Journal, "timing", "journal")
    marks.around(checkpointing.DirectoryCheckpointIO, "save_checkpoint", "checkpoint")
    marks.around(checkpointing, "refresh", "index")
    marks.around(train._Life, "_end", "end")
    synchronise = os.fsync

    def slowly(descriptor: int) -> None:
        if marks.phase in {"checkpoint", "index"}:
            time.sleep(slow_write_s)
        synchronise(descriptor)

    os.fsync = slowly
    return verb("train", *argv)
