"""Starting the ranks of a training on several devices, and ending all of them when one ends badly.

Each rank is `python -m segkit._worker RUN_DIR` in a process group of its own. They find one another through a store
that this process keeps, on the loopback interface. The rules:

    all end well                      done
    all saved a checkpoint and end    `Preempted`, exit code 75
    one fails or is killed            the others are killed seconds later; one error names the rank that began
    a signal reaches this process     handed on once; a second one ends everything at once
    this process is killed            the ranks notice and end

torch's own elastic launcher does most of this, but ends a preempted run with exit code 1, forwards a signal while it
kills half a minute later, and prints every rank's traceback.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import IO, Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # documented, but not in its list of exports

from segkit.callbacks.whereabouts import whereabouts
from segkit.errors import ExitCode, Preempted, SegkitError
from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json, remove_tree
from segkit.workflows.rank import ending_of, place_of

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_LAST_WORDS_S = 3.0
"""How long the other ranks may take to say what they saw before they are killed."""
_LEAVING_S = 60.0
"""How long after one rank has left with a checkpoint the others may take."""
_CLEANING_S = 3.0
"""How long what is left of a rank's process group may take to clean up and end by itself."""
_POLL_S = 0.05
_LOST = ("connection closed", "connection reset", "broken pipe", "gloo", "nccl", "socket", "store")
"""Words of the errors that a rank ends with because another one had gone."""


class RankFailed(SegkitError):
    """A rank ended badly; carries that rank's exit code."""

    def __init__(self, what: str, *, where: str, why: str, mend: str, code: ExitCode) -> None:
        super().__init__(what, where=where, why=why, mend=mend)
        self.exit_code = code


@dataclass
class _Rank:
    """One process and what is known of it."""

    number: int
    process: subprocess.Popen[bytes]
    output: IO[bytes] | None
    code: int | None = None
    killed_by_us: bool = field(default=False)

    def signal(self, number: int) -> None:
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def kill(self) -> None:
        """The process; its loader workers end with it, and what cleans up after them has the time to."""
        self.killed_by_us = self.killed_by_us or self.code is None
        self.signal(signal.SIGKILL)

    def clear_away(self) -> None:
        """Whatever is left of its process group after that."""
        until = time.monotonic() + _CLEANING_S
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < until:
                os.killpg(self.process.pid, 0)
                time.sleep(_POLL_S)
            os.killpg(self.process.pid, signal.SIGKILL)


def train_on_ranks(run: RunDirectory, *, size: int, tick: Callable[[], None]) -> str:
    """Train by `size` processes on this machine; `Life.write` has left what they need in the run folder.

    Args:
        run: The run folder, held by this process.
        size: Number of ranks.
        tick: Called again and again while they train.

    Returns:
        Why training ended before its last epoch; empty where it did not.

    Raises:
        Preempted: A signal asked for the end; the state is saved.
        RankFailed: A rank ended badly; all are gone.
    """
    for number in range(size):
        ending_of(run, number).unlink(missing_ok=True)
        place_of(run, number).unlink(missing_ok=True)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(4 * size)
    port = listening.getsockname()[1]
    store = TCPStore("127.0.0.1", port, None, True, wait_for_workers=False, master_listen_fd=listening.detach())
    ranks = [_start(run, number, size=size, port=port) for number in range(size)]
    try:
        with _forwarding(ranks) as asked:
            _wait(ranks, tick)
    finally:
        for rank in ranks:
            rank.kill()
        for rank in ranks:
            rank.code = rank.process.wait()
            if rank.output is not None:
                rank.output.close()
        for rank in ranks:
            rank.clear_away()
        del store
    return _outcome(run, ranks, asked)


def _start(run: RunDirectory, number: int, *, size: int, port: int) -> _Rank:
    environment = {
        **os.environ,
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": run.name,
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    if sys.platform == "linux":
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all ranks are here: nothing listens beyond this machine
    output = None if number == 0 else (run.ranks / f"rank-{number}.log").open("wb")
    command = [sys.executable, "-m", "segkit._worker", str(run.path)]
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
    )
    return _Rank(number, process, output)


def _wait(ranks: list[_Rank], tick: Callable[[], None]) -> None:
    """Until all have ended; the rest are killed when one has failed."""
    deadline = float("inf")
    while any(rank.code is None for rank in ranks):
        for rank in ranks:
            if rank.code is None and (code := rank.process.poll()) is not None:
                rank.code = code
                patience = {int(ExitCode.DONE): float("inf"), int(ExitCode.PREEMPTED): _LEAVING_S}
                deadline = min(deadline, time.monotonic() + patience.get(code, _LAST_WORDS_S))
        if time.monotonic() > deadline:
            for rank in ranks:
                rank.kill()
        tick()
        time.sleep(_POLL_S)


@contextlib.contextmanager
def _forwarding(ranks: list[_Rank]) -> Iterator[list[int]]:
    """Hand the first signal to every rank; the second one kills them and, by the system's default, this process."""
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        if asked:
            for rank in ranks:
                rank.kill()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        asked.append(number)
        for rank in ranks:
            rank.signal(number)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _outcome(run: RunDirectory, ranks: list[_Rank], asked: list[int]) -> str:
    """Done, preempted, or whose fault it was."""
    endings = {rank.number: _ending(run, rank) for rank in ranks}
    codes = {rank.number: rank.code for rank in ranks}
    if all(code == ExitCode.DONE for code in codes.values()):
        reason = str(endings[0].get("reason", ""))
        remove_tree(run.ranks)
        return reason
    saved = [number for number, code in codes.items() if code == ExitCode.PREEMPTED]
    if saved and all(code in (ExitCode.PREEMPTED, ExitCode.DONE) for code in codes.values()):
        told = endings[saved[0]]
        remove_tree(run.ranks)
        raise Preempted(told["what"], where=told["where"], why=told["why"], mend=told["mend"])
    if asked and all(code == -asked[0] or code == ExitCode.PREEMPTED for code in codes.values()):
        raise Preempted(
            "The run was asked to stop before it trained.",
            where=str(run.path),
            why=f"signal {signal.Signals(asked[0]).name}",
            mend="run the same command again",
        )
    raise _failure(run, ranks, endings)


def _ending(run: RunDirectory, rank: _Rank) -> dict[str, Any]:
    """What a rank said of its end; where it could say nothing, what its place and its signal tell."""
    try:
        return read_json(ending_of(run, rank.number))
    except (OSError, ValueError):
        stage, cases = whereabouts(place_of(run, rank.number))
        code = rank.code or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"left with exit code {code}"
        return {"code": int(ExitCode.BUG), "time": 0.0, "stage": stage, "cases": cases, "signal": how}


def _failure(run: RunDirectory, ranks: list[_Rank], endings: dict[int, dict[str, Any]]) -> RankFailed:
    """The error of the rank that began: one that died without a word, else the first that did not merely lose another.

    Ranks that were killed here are not asked.
    """
    failed = [rank for rank in ranks if rank.code != ExitCode.DONE and not rank.killed_by_us]
    failed.sort(key=lambda rank: (_lost_another(endings[rank.number]), endings[rank.number]["time"]))
    first = failed[0]
    told = endings[first.number]
    host = told.get("host", socket.gethostname())
    place = f"rank {first.number} of {len(ranks)} on {host}"
    place += f", {told['stage']}" if told["stage"] else ", before training"
    place += f", cases {told['cases']}" if told["cases"] else ""
    mend = told.get("mend") or "run the same command again: it goes on from the last checkpoint"
    code = ExitCode(told["code"]) if told["code"] in set(ExitCode) else ExitCode.BUG
    if "signal" in told:
        log = run.ranks / f"rank-{first.number}.log"
        why = f"it {told['signal']}" + (f"; its output: {log}" if log.exists() and log.stat().st_size else "")
        return RankFailed("A rank died.", where=place, why=why, mend=mend, code=code)
    if told["what"]:
        where = f"{place}; {told['where']}" if told["where"] else place
        return RankFailed(told["what"], where=where, why=told["why"], mend=mend, code=code)
    what = f"A rank failed: {told['type']}: {told['message']}"
    why = "Traceback, without the libraries' own frames (whole in {}):\n    {}".format(
        ending_of(run, first.number), "\n    ".join(told["frames"])
    )
    return RankFailed(what, where=place, why=why, mend=mend, code=code)


def _lost_another(ending: dict[str, Any]) -> bool:
    if "signal" in ending:
        return False
    text = f"{ending['type']} {ending['message']}".lower()
    return not ending["what"] and any(word in text for word in _LOST)
