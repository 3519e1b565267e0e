"""One of several processes that train together: builds its parts from the run folder, trains, says how it ended.

Started as `python -m segkit._worker RUN_DIR` by the process that holds the run, or joined by hand under `torchrun`.
A rank composes no configuration and decides nothing.
"""

import faulthandler
import os
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from segkit.callbacks.quiet import quiet
from segkit.callbacks.whereabouts import Whereabouts, whereabouts
from segkit.configuration import build_loss
from segkit.data.pipeline import Prepared
from segkit.data.splits import Roles
from segkit.errors import ExitCode, Preempted, SegkitError, exit_code
from segkit.losses.partial_labels import over_partial_labels
from segkit.planning.device import device_facts
from segkit.planning.plan import Plan
from segkit.runs.directory import RunDirectory
from segkit.runs.files import read_json, write_json
from segkit.runs.lifeline import die_with
from segkit.runs.log import logged_to
from segkit.workflows.components import build_components, set_threads
from segkit.workflows.finishing import draw_snapshot
from segkit.workflows.fitting import fit
from segkit.workflows.initial_weights import initial_weights
from segkit.workflows.life import Life


def run(path: Path, *, callbacks: Sequence[Callback] = ()) -> str:
    """Train as one of several.

    Args:
        path: The run folder, with what `Life.write` has left there.
        callbacks: More Lightning callbacks.

    Returns:
        Why training ended before its last epoch; empty where it did not.
    """
    quiet()
    directory = RunDirectory(path)
    config, life = directory.load_config(), Life.read(directory)
    plan = Plan.from_json(read_json(directory.plan))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    set_threads(config["trainer"]["threads"], processes=local)
    roles = Roles.from_json(read_json(directory.split))
    prepared = Prepared(tuple(s for _, s in life.train), tuple(s for _, s in life.tuning), roles)
    loss = over_partial_labels(build_loss(config, plan, trust=True), prepared.annotated)
    every = config["overlays"]["every_n_epochs"] or 0
    parts = build_components(
        config,
        plan=plan,
        device=device_facts(config["trainer"]["accelerator"]),
        prepared=prepared,
        loss=loss,
        run=directory,
        max_epochs=life.max_epochs,
        restored=life.checkpoint is not None,
        snapshots=[(lambda *_: draw_snapshot(directory, config, life.tuning), every)],
        callbacks=[Whereabouts(place_of(directory, number())), *callbacks],
    )
    if life.checkpoint is None and (weights := initial_weights(config)) is not None:
        weights.put_into(parts.module.network, config, plan)
    return fit(parts, checkpoint=life.checkpoint)


def number() -> int:
    """Number of this process among the ranks."""
    return int(os.environ["RANK"])


def place_of(run: RunDirectory, rank: int) -> Path:
    """File in which a rank notes what it is doing."""
    return run.ranks / f"rank-{rank}.at"


def ending_of(run: RunDirectory, rank: int) -> Path:
    """File in which a rank says how it ended."""
    return run.ranks / f"rank-{rank}.end.json"


def main(arguments: Sequence[str]) -> int:
    """The process: train, write down the ending, give the exit code. Prints no error: the starter does, once."""
    directory = RunDirectory(Path(arguments[0]))
    faulthandler.enable()  # a segmentation fault leaves its Python stack in the rank's log
    die_with(os.getppid())
    try:
        # The others' warnings go to their standard error, which is a file.
        with logged_to(directory.log) if number() == 0 else nullcontext():
            reason = run(directory.path)
    except BaseException as error:
        write_json(ending_of(directory, number()), _ending(directory, error))
        sys.stdout.flush()
        return exit_code(error)
    write_json(ending_of(directory, number()), {"code": int(ExitCode.DONE), "reason": reason})
    return ExitCode.DONE


def _ending(run: RunDirectory, error: BaseException) -> dict[str, Any]:
    """What is known about an ending by exception, as plain values."""
    stage, cases = whereabouts(place_of(run, number()))
    told = error if isinstance(error, SegkitError) else SegkitError("")
    return {
        "code": int(exit_code(error)),
        "time": time.time(),
        "host": socket.gethostname(),
        "type": type(error).__name__,
        "message": str(error),
        "what": told.what,
        "where": told.where,
        "why": told.why,
        "mend": told.mend,
        "stage": stage,
        "cases": cases,
        "traceback": "" if isinstance(error, Preempted) else "".join(traceback.format_exception(error)),
        "frames": [] if isinstance(error, Preempted) else own_frames(error),
    }


def own_frames(error: BaseException) -> list[str]:
    """The traceback without what the libraries did in between; of an error within one, that library's last frame."""
    frames = traceback.extract_tb(error.__traceback__)
    kept = [frame for frame in frames[:-1] if "site-packages" not in frame.filename] + frames[-1:]
    return [f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}" for frame in kept]
