"""Processes that stand in for the evaluator: the same files and exit codes, without torch."""

import sys
from collections.abc import Callable
from pathlib import Path

WRITE = """
import sys, time
from pathlib import Path
from segkit.runs.evaluations import Evaluation
from segkit.runs.manifest import checkpoint_path, digest_of, read_manifest
root, folder, step = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
score = {scores}[step]
digest = digest_of(read_manifest(checkpoint_path(root, step)))
values = {{"val/score": score, "val/loss": float("inf")}}
Evaluation(step, digest, score, {{"case0": score, "case1": None}}, values).write(folder)
"""


def writing(root: Path, folder: Path, scores: dict[int, float], *, first: str = "") -> Callable[[int], list[str]]:
    """A command that writes the score of its step, after the statements `first`."""
    code = first + WRITE.format(scores=scores)
    return lambda step: [sys.executable, "-c", code, str(root), str(folder), str(step)]


def running(code: str) -> Callable[[int], list[str]]:
    """A command that runs statements."""
    return lambda step: [sys.executable, "-c", code, str(step)]
