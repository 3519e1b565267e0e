"""Validation of one checkpoint in a process of its own; see `callbacks.evaluation_apart` for who starts it and why.

It reads the run folder and writes one file, `evaluations/step-00000006.json`. The checkpoints and the journals belong
to the training process.
"""

import contextlib
import faulthandler
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from segkit.configuration import build_loss
from segkit.errors import ExitCode, SegkitError, exit_code
from segkit.losses.loss import set_epoch
from segkit.losses.partial_labels import over_partial_labels
from segkit.module.validation import defined, score_case, validation_of
from segkit.runs.directory import RunDirectory
from segkit.runs.evaluations import Evaluation
from segkit.runs.manifest import checkpoint_path, digest_of, read_manifest
from segkit.workflows.life import read_tuning
from segkit.workflows.loading import load

_NICE = 10
_SACRIFICE = "500"
_GPU_THREADS = 4


def evaluate(directory: RunDirectory, step: int) -> Evaluation:
    """Score the tuning cases by the checkpoint of `step`, as validation within the training does.

    Args:
        directory: The run folder, with what `Life.write_tuning` has left there.
        step: Of the checkpoint.

    Raises:
        StorageError: The checkpoint is damaged or gone.
        DataError: A case cannot be read.
    """
    folder = checkpoint_path(directory.checkpoints, step)
    manifest = read_manifest(folder)
    accelerator = directory.load_config()["trainer"]["accelerator"]
    trained = load(directory.path, checkpoint=folder.name, accelerator=accelerator, trust=True)
    on_cpu = trained.predictor.device.type == "cpu"
    torch.set_num_threads(1 if on_cpu else _GPU_THREADS)  # the cores belong to the training
    cases = [case for _, case in read_tuning(directory)]
    loss = over_partial_labels(build_loss(trained.config, trained.plan, trust=True), (case.annotated for case in cases))
    set_epoch(loss, max(0, int(manifest["entry"]["epoch"]) - 1))  # the one that has just ended
    scored = [
        score_case(trained.predictor, loss, case.load(), settings=trained.settings, spacing=trained.plan.spacing)
        for case in cases
    ]
    validation = validation_of(scored, trained.plan.labels, trained.settings)
    # What the trainer logs has passed through single precision: the same here, so that the journals are the same.
    values = {key: float(torch.tensor(value)) for key, value in defined(validation.values()).items()}
    per_case = validation.summary.per_case_score
    return Evaluation(
        step=step,
        manifest=digest_of(manifest),
        score=values.get("val/score"),
        per_case={case: value if math.isfinite(value) else None for case, value in per_case.items()},
        values=values,
    )


def main(arguments: Sequence[str]) -> int:
    """The process: evaluate, write the result, give the exit code; what it prints is its log."""
    directory, step = RunDirectory(Path(arguments[0])), int(arguments[1].removeprefix("step-"))
    faulthandler.enable()
    _step_back()
    try:
        evaluate(directory, step).write(directory.evaluations)
    except SegkitError as error:
        print(error, file=sys.stderr)
        return exit_code(error)
    return ExitCode.DONE


def _step_back() -> None:
    """The training goes first: for the processor, and where memory runs out this process is the one to lose."""
    os.nice(_NICE)
    with contextlib.suppress(OSError):  # Linux has it; a container may forbid it
        Path("/proc/self/oom_score_adj").write_text(_SACRIFICE)
