"""A clean process that has imported torch, Lightning and segkit once, and forks a child for each command.

Run as `python -c "from tests.reliability.fork_server import serve; serve()"`. It reads one request a line (a
pickled function with arguments, in base64) and writes one line of JSON for each child that started and ended. It
has one thread throughout, so that its children are as good as fresh processes; each is a session of its own, and
leaves through the interpreter's ordinary end, with everything that runs there.
"""

import base64
import gc
import importlib
import json
import multiprocessing
import os
import pickle
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PRELOAD = (
    "segkit.configuration.composition",
    "segkit.workflows.train",
    "segkit.workflows.prepare",
    "segkit.workflows.evaluate",
    "segkit.workflows.predict",
    "matplotlib.backends.backend_agg",
    "monai",  # and with it MLflow: seconds for each child that measures surfaces or is tracked
)


def verb(name: str, *argv: str) -> int:
    """What a command line does: the real entry point, with its messages and its exit code."""
    from segkit.configuration.entry import main

    return main(name, argv)


def serve() -> None:
    """Import, say so, and fork until standard input ends."""
    import torch

    torch.set_num_threads(1)
    for name in _PRELOAD:
        importlib.import_module(name)
    _warm_up()
    gc.collect()
    gc.freeze()  # a child's collector would otherwise write to every page it shares with this process
    tasks = Path("/proc/self/task")
    assert not tasks.exists() or len(list(tasks.iterdir())) == 1, "a process with threads must not be forked"
    requests, answers = os.dup(0), os.dup(1)
    wake, tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(tell)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _say(answers, {"ready": True})
    pending = b""
    while True:
        ready, _, _ = select.select([requests, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            _reap(answers)
        if requests in ready:
            if not (data := os.read(requests, 65536)):
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                if (pid := os.fork()) == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for descriptor in (requests, answers, wake, tell):
                        os.close(descriptor)
                    sys.exit(_run(**pickle.loads(base64.b64decode(line))))
                _say(answers, {"started": pid})


def _warm_up() -> None:
    """What the libraries do once a process (fonts, parsers), so that children need not."""
    from segkit.configuration import compose
    from segkit.reporting.curves import Series, curves_png

    for overrides in ([], ["debug=fast"]):
        compose("train", overrides)
    curves_png({key: Series([1, 2], [1, 1], [1.0, 0.5]) for key in ("train/loss", "val/score", "val/dice", "lr")})


def _run(
    *, function: Callable[..., Any], arguments: tuple[Any, ...], output: Path, cwd: Path, environment: dict[str, str]
) -> int:
    os.setsid()
    multiprocessing.current_process()._config["semprefix"] = f"/mp-{os.getpid()}"  # type: ignore[attr-defined]
    os.chdir(cwd)
    os.environ.update(environment)
    for number, path in ((0, Path(os.devnull)), (1, output / "stdout"), (2, output / "stderr")):
        descriptor = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(descriptor, number)
        os.close(descriptor)
    code = int(function(*arguments) or 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as the door does
    return code


def _reap(answers: int) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say(answers, {"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def _say(answers: int, message: dict[str, Any]) -> None:
    os.write(answers, json.dumps(message).encode() + b"\n")
