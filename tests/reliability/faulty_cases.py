"""Prepared cases that do what broken storage and broken code do to a loader worker; workers import them by name."""

import ctypes
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from segkit.data.stored_case import StoredCase


def local_class() -> None:
    """Raise an exception whose class pickle does not find."""

    class Local(Exception):
        """Needs two arguments besides."""

        def __init__(self, one: str, other: str) -> None:
            super().__init__(one + other)

    raise Local("not to be ", "pickled")


def raises(error: BaseException) -> Callable[[], None]:
    """A fault that raises."""

    def fault() -> None:
        raise error

    return fault


def stopped() -> None:
    """Stand still, threads included, a moment after the batch before was announced."""
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGSTOP)


class Unnamed(BaseException):
    """What `except Exception` does not catch."""


FAULTS: dict[str, Callable[[], object]] = {
    "exception": raises(ValueError("seven legs")),
    "local class": local_class,
    "safetensors": raises(SafetensorError("bad header")),
    "base exception": raises(Unnamed("deep")),
    "memory": raises(MemoryError("no room")),
    "sigkill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "sigsegv": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(3),
    "hang": lambda: time.sleep(600),
    "stop": stopped,
}


@dataclass(frozen=True)
class FaultyCase(StoredCase):
    """A case that goes wrong when one of its arrays is opened, as soon as a file of a certain name is there.

    Args:
        fault: Which of `FAULTS`.
        at: The array.
        armed: The file; None: always.
    """

    fault: str = ""
    at: str = "image"
    armed: Path | None = None

    def array(self, name: str) -> np.ndarray:
        """The array, or the fault."""
        if name == self.at and (self.armed is None or self.armed.exists()):
            FAULTS[self.fault]()
        return super().array(name)


def faulty(case: StoredCase, fault: str, *, at: str = "image", armed: Path | None = None) -> FaultyCase:
    """The same case, with a fault."""
    return FaultyCase(**vars(case), fault=fault, at=at, armed=armed)
