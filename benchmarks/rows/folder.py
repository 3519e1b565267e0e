"""A folder of small images, mirrored: from the command to the last mask."""

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.harness import Contender, Measured, Pair, Row, Run
from benchmarks.process import run_python
from benchmarks.topology import HIPPOCAMPUS_FULL

COUNT = 50
OWN, SAME = "own-plan", "nnunet-network"
"""Runs of one step each: what a network has learnt does not change how long it takes."""


def contenders(bench: Bench) -> Mapping[str, Contender]:
    """Each a process from its start to its end."""

    def ours(run: str, *words: str) -> Callable[[Path], list[str]]:
        folder = bench.workspace / "runs" / run
        fixed = [f"run={folder}", f"input={_images(bench)}", "mirror=true", f"trainer.accelerator={bench.device}"]
        return lambda masks: ["-m", "segkit.predict", *fixed, f"output={masks}", *words]

    def theirs(masks: Path) -> list[str]:
        return ["-m", "benchmarks.peers.nnunet_folder", bench.to_json(), str(_images(bench)), str(masks)]

    def contender(command: Callable[[Path], list[str]], precision: str) -> Contender:
        return Contender(lambda: _commanded(bench, command), precision)

    native = "float32" if bench.device == "cpu" else "fp16 autocast"
    return {
        "segkit": contender(ours(OWN), "the plan's"),
        "segkit, nnU-Net's network": contender(ours(SAME), "the plan's"),
        "segkit fp32, nnU-Net's network": contender(ours(SAME, "trainer.precision=32-true"), "float32"),
        "nnU-Net": contender(theirs, native),
    }


def _commanded(bench: Bench, command: Callable[[Path], list[str]]) -> Run:
    def run() -> Measured:
        masks = Path(tempfile.mkdtemp(dir=bench.workspace))
        try:
            started = time.perf_counter()
            run_python(command(masks))
            taken = time.perf_counter() - started
            written, wanted = len(list(masks.glob("*.nii.gz"))), len(list(_images(bench).iterdir()))
            if written != wanted:
                raise RuntimeError(f"{written} masks of {wanted} images")
            return Measured(taken)
        finally:
            shutil.rmtree(masks)

    return run


def _images(bench: Bench) -> Path:
    """A folder of the first images."""
    folder = bench.workspace / "images"
    if not folder.exists():
        folder.mkdir()
        for image in sorted((bench.data / "imagesTr").glob("*_0000.nii.gz"))[: bench.pick(COUNT, 2)]:
            (folder / image.name).symlink_to(image)
    return folder


def _before(bench: Bench) -> None:
    from benchmarks.ours import overrides

    short = ["trainer.max_epochs=1", "trainer.steps_per_epoch=1", "overlays.cases=0"]
    for name, words in (
        (OWN, [word for word in overrides(bench) if word != "experiment=nnunet"] + ["plan.flip_axes=[0,1,2]"]),
        (SAME, overrides(bench, HIPPOCAMPUS_FULL)),
    ):
        if not (bench.workspace / "runs" / name).exists():
            run_python(["-m", "segkit.train", *words, *short, f"run_name={name}"])


ROW = Row(
    name="folder",
    title=f"{COUNT} small images, mirrored",
    what=f"From the command to the last mask: {COUNT} images of the data set, tiles mirrored along all axes, eight "
    "passes a tile. Ours with the network that its plan gives such data, and with that of nnU-Net's hippocampus plan, "
    "which nnU-Net has.",
    unit="s",
    contenders=contenders,
    pairs=(
        Pair("nnU-Net", "segkit"),
        Pair("nnU-Net", "segkit, nnU-Net's network", "segkit fp32, nnU-Net's network"),
    ),
    rounds=2,
    warmup=0,
    before=_before,
)
