"""How long one waits before anything happens."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.harness import Contender, Measured, Pair, Row, Run, timed
from benchmarks.process import STARTED
from benchmarks.topology import HIPPOCAMPUS


def contenders(bench: Bench) -> Mapping[str, Contender]:
    """Every run is a process of its own."""
    script = Path(sys.executable).with_name("nnUNetv2_train")
    return {
        "segkit, help": Contender(lambda: _command([sys.executable, "-m", "segkit.train", "--help"]), "none"),
        "nnU-Net, help": Contender(lambda: _command([str(script), "-h"]), "none"),
        "segkit, first step": Contender(lambda: _ours(bench, None), "the plan's", apart=True),
        "segkit fp32, first step": Contender(lambda: _ours(bench, "32-true"), "float32", apart=True),
        "nnU-Net, first step": Contender(
            lambda: _nnunet(bench), "float32" if bench.device == "cpu" else "fp16 autocast, compiled", apart=True
        ),
    }


def _command(words: Sequence[str]) -> Run:
    return timed(lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL), unit="s")


def _ours(bench: Bench, precision: str | None) -> Run:
    from benchmarks.ours import overrides, train

    def run() -> Measured:
        clock, _ = train(overrides(bench, HIPPOCAMPUS, precision=precision), steps=1, epochs=1)
        return Measured(clock.first_step - float(os.environ[STARTED]))

    return run


def _nnunet(bench: Bench) -> Run:
    from benchmarks.peers.nnunet import prepared, trainer

    def run() -> Measured:
        made = trainer(bench, HIPPOCAMPUS, folder=prepared(bench))
        made.on_train_start()
        made.on_train_epoch_start()
        made.train_step(next(made.dataloader_train))
        found = Measured(time.time() - float(os.environ[STARTED]))
        made.dataloader_train._finish()
        made.dataloader_val._finish()
        return found

    return run


def _before(bench: Bench) -> None:
    from benchmarks.prepared import prepare_both

    prepare_both(bench)


ROW = Row(
    name="start_up",
    title="Start-up",
    what="From the start of the process to the end of `--help`, and to the end of the first training step on "
    "prepared data (nnU-Net's hippocampus plan at batch 2).",
    unit="s",
    contenders=contenders,
    pairs=(
        Pair("nnU-Net, help", "segkit, help"),
        Pair("nnU-Net, first step", "segkit, first step", "segkit fp32, first step"),
    ),
    rounds=3,
    warmup=0,
    before=_before,
)
