"""Every border between two bytes or two system calls of what a function writes, to stop it there.

    calls, count = find_borders(save)           those at system calls, and how many there are in all
    kill_at(17, save)                           in a forked child: ends by os._exit before border 17
    with faulty(17, errno.ENOSPC, lasting=True): save()       in this process: raises there

Python's own files are made unbuffered, so that each byte handed over is in the file; safetensors, which writes in
Rust, is given the same bytes through such a file. `fsync` is a border but costs nothing: a kill is no power cut.
"""

import contextlib
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import safetensors.torch

from segkit.runs import checkpoints

_CALLS = ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir", "ftruncate")
_REMOVING = ("unlink", "rmdir")
KILLED = 9


class Borders:
    """Counts borders; at number `at` it calls `stop`, which does not return."""

    def __init__(self, at: int | None, stop: Callable[[], Any], *, lasting: bool = False, removes: bool = True) -> None:
        self.at, self.stop, self.seen = at, stop, 0
        self.calls: list[int] = []
        self.lasting, self.removes, self.kills = lasting, removes, True

    def reached(self, width: int) -> int | None:
        """Take `width` borders; how many of them lie before the stop, or None where it lies further on."""
        self.calls.append(self.seen)
        first, self.seen = self.seen, self.seen + width
        if self.at is None or self.at >= self.seen or (self.at < first and not self.lasting):
            return None
        return max(0, self.at - first)

    def pass_by(self) -> None:
        """One border."""
        if self.reached(1) is not None:
            self.stop()


class _File(io.FileIO):
    """Stops in the middle of a write, what came before being in the file.

    Where the writer has asked for no buffer it is told how much was taken, and of the fault at the next call, as by
    the system; a buffer would have done that in its place.
    """

    borders: Borders
    unbuffered: bool

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        before = self.borders.reached(len(view))
        if before is not None:
            super().write(view[:before])
            if self.unbuffered and before and not self.borders.kills:
                return before
            self.borders.stop()
        return super().write(view)


@contextlib.contextmanager
def watched(borders: Borders) -> Iterator[None]:
    """Lead everything that is written through `borders`."""
    real_open = io.open

    def opened(path: Any, mode: str = "r", *arguments: Any, **settings: Any) -> Any:
        if not set(mode) & set("wax+"):
            return real_open(path, mode, *arguments, **settings)
        borders.pass_by()
        file = _File(path, mode.replace("b", "").replace("t", ""))
        file.borders, file.unbuffered = borders, settings.get("buffering", (*arguments, -1)[0]) == 0
        return file if "b" in mode else io.TextIOWrapper(file, encoding="utf-8", write_through=True)

    def called(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **settings: Any) -> Any:
            # A full disk still lets files go; a kill does not ask.
            if not (borders.lasting and borders.removes and name in _REMOVING):
                borders.pass_by()
            return None if name == "fsync" else real(*arguments, **settings)

        return call

    def save_file(tensors: Any, path: Path) -> None:
        with opened(path, "wb") as file:
            file.write(safetensors.torch.save(tensors))

    with contextlib.ExitStack() as stack:
        for name in _CALLS:
            stack.enter_context(mock.patch.object(os, name, called(name, getattr(os, name))))
        stack.enter_context(mock.patch.object(io, "open", opened))
        stack.enter_context(mock.patch.object(checkpoints, "save_file", save_file))
        yield


def find_borders(write: Callable[[], object]) -> tuple[list[int], int]:
    """Borders before and after each system call of `write`, and how many there are with those between two bytes.

    `write` runs in a forked child and leaves the files as it made them.
    """
    borders = Borders(None, lambda: None)
    read_end, write_end = os.pipe()

    def found() -> None:
        with watched(borders):
            write()
        os.write(write_end, json.dumps([borders.calls, borders.seen]).encode())

    assert forked(found) == 0
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        calls, count = json.load(answer)
    return calls, count


def spread(write: Callable[[], object], *, calls: int, byte_distance: int) -> list[int]:
    """Some of the borders: about so many of those at calls, and between bytes one in `byte_distance`."""
    at_calls, count = find_borders(write)
    stride = max(1, len(at_calls) // calls)
    return sorted({*at_calls[::stride], *at_calls[-1:], *range(0, count, byte_distance)})


def kill_at(border: int, write: Callable[[], object]) -> None:
    """Run `write` in a forked child that dies at a border, as by SIGKILL: no handler, no cleaning up."""

    def killed() -> None:
        with watched(Borders(border, lambda: os._exit(KILLED))):
            write()

    assert forked(killed) == KILLED


@contextlib.contextmanager
def faulty(border: int, number: int, *, lasting: bool, removes: bool = True) -> Iterator[None]:
    """Raise OSError at a border.

    Args:
        border: Where.
        number: The system's `errno`.
        lasting: Whether everything after it fails as well.
        removes: Whether files can still be removed then, as on a full disk, or not, as on a read-only one.
    """

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    borders = Borders(border, fail, lasting=lasting, removes=removes)
    borders.kills = False
    with watched(borders):
        yield


def forked(act: Callable[[], object]) -> int:
    """Run `act` in a forked child; its exit code, 1 for an exception, whose traceback goes to standard error."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
