"""A run folder of format 1, as segkit 0.1.0 wrote it, is still read to the bit, told, trained on and predicted with.

`tests/fixtures/format-1` was made once, by the code of the release, and is never made again: six grey 16 x 16 pictures
of a disc on noise (`data/`), and what `train` left after two epochs of two steps on four of them (`run/`):

    debug=fast run_name=run optimizer=sgd data.max_cases=null trainer.accelerator=cpu trainer.threads=1
    trainer.precision=32-true plan.features=[2,4] plan.strides=[[1,1],[2,2]] plan.kernel_sizes=[[3,3],[3,3]]
    plan.patch_size=[16,16] plan.batch_size=2 overlays.cases=0
    data.root=/tmp/format-1/data paths.runs=/tmp/format-1/runs paths.cache=/tmp/format-1/cache

Left out are the files that tell of a machine or that no verb reads (env.json, log.txt, timings.jsonl, the lock, curves
and report). A new format gets a folder of its own beside it.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from segkit.configuration import compose, main
from segkit.errors import StorageError
from segkit.runs.checkpoints import newest_valid, read_checkpoint
from segkit.runs.directory import RunDirectory
from segkit.runs.manifest import MANIFEST, NewerFormat, checkpoint_path, read_manifest
from segkit.runs.standing import standing
from segkit.workflows import train

FIXTURE = Path(__file__).parents[1] / "fixtures" / "format-1"
MADE_AT = "/tmp/format-1"
DIGESTS: dict[int, dict[str, str]] = {
    2: {
        "model": "83330b9dabd7d519f15a9ecacb534b5fd318395b049b0fbe317b42eb71851dfe",
        "optimizer": "1d5e32b9c267b4c73aeff015389d5d1f7689bc1db7e1ef1ade41df8ca938bb37",
        "state": "671013879a8ba156244b3e13a48b87b2801493b14f17acdb6b5cd818e4c21d96",
    },
    4: {
        "model": "4b89b3c7837944a0bf50eb5b0dd9c1d15e7ef10b5fe6b8d5a5e282e6b71ad60e",
        "optimizer": "b402a8f74ed4c5cca9712b058feef45bf54e8dcbe935c80d9c41a683db212721",
        "state": "1b197c48048a56f62508adc4ef115e9a216ce280969d88f39a4bbb95872ee66e",
    },
}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A copy of the folder, at another place than where it was made."""
    shutil.copytree(FIXTURE / "data", tmp_path / "data")
    path = tmp_path / "runs" / "run"
    shutil.copytree(FIXTURE / "run", path)
    config = path / "config.yaml"
    config.write_text(config.read_text().replace(MADE_AT, str(tmp_path)))
    return RunDirectory(path)


def digest(value: object) -> str:
    """sha256 of names, types, shapes and bytes of all tensors, and of the plain values between them."""
    found = hashlib.sha256()

    def walk(one: object) -> None:
        if isinstance(one, torch.Tensor):
            found.update(f"{one.dtype} {tuple(one.shape)}".encode() + one.contiguous().numpy().tobytes())
        elif isinstance(one, dict):
            for key in sorted(one, key=str):
                found.update(str(key).encode())
                walk(one[key])
        elif isinstance(one, list | tuple):
            for item in one:
                walk(item)
        else:
            found.update(repr(one).encode())

    walk(value)
    return found.hexdigest()


@pytest.mark.parametrize("step", [2, 4])
def test_every_tensor_is_read_to_the_bit(run: RunDirectory, step: int) -> None:
    contents = read_checkpoint(checkpoint_path(run.checkpoints, step))
    assert contents.entry.step == step
    assert contents.training is None
    found = {"model": contents.model, "optimizer": contents.optimizer, "state": contents.state}
    assert {name: digest(value) for name, value in found.items()} == DIGESTS[step]


def test_its_status_is_told(run: RunDirectory) -> None:
    facts = standing(run)
    assert facts["problems"] == []
    assert (facts["state"], facts["epoch"], facts["max_epochs"], facts["step"]) == ("finished", 2, 2, 4)
    assert [checkpoint["state"] for checkpoint in facts["checkpoints"]] == ["whole", "whole"]
    assert facts["resumes_from"]["checkpoint"] == "step-00000004"
    assert facts["best_score"] == pytest.approx(json.loads((run.checkpoints / "best.json").read_text())["score"])


def test_it_predicts_and_is_scored(run: RunDirectory, tmp_path: Path) -> None:
    words = [f"run={run.path}", "trainer.accelerator=cpu"]
    output = tmp_path / "masks"
    assert main("predict", [*words, f"input={tmp_path / 'data' / 'images'}", f"output={output}"]) == 0
    assert len(list(output.glob("disc_*.png"))) == 6
    assert main("evaluate", [*words, "subset=test", "overlays=0"]) == 0


def test_training_goes_on_from_it(run: RunDirectory, tmp_path: Path) -> None:
    stored = yaml.safe_load(run.config.read_text())
    trained = train.run(compose("train", [*stored["overrides"], "trainer.max_epochs=3"]))
    assert trained is not None
    facts = standing(run)
    assert (facts["epoch"], facts["step"], facts["problems"]) == (3, 6, [])
    rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    before = [json.loads(line) for line in (FIXTURE / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[: len(before)] == before
    assert max(row["epoch"] for row in rows) == 3


def _as_format_2(run: RunDirectory, step: int) -> Path:
    path = checkpoint_path(run.checkpoints, step) / MANIFEST
    manifest: dict[str, Any] = {"format": 2, "parts": ["whatever a later format holds"]}
    path.write_text(json.dumps(manifest))
    return path.parent


def test_format_2_is_refused_by_name(run: RunDirectory) -> None:
    path = _as_format_2(run, 4)
    with pytest.raises(NewerFormat, match=r"format 2.*reads up to 1"):
        read_manifest(path)
    facts = standing(run)
    assert [checkpoint["state"] for checkpoint in facts["checkpoints"]] == ["whole", "newer format"]
    assert "format 2" in facts["problems"][0]


def test_a_newer_checkpoint_is_not_passed_over_for_an_older_one(run: RunDirectory) -> None:
    """Going on from the one before would remove it: it is whole, only not ours to read."""
    path = _as_format_2(run, 4)
    with pytest.raises(StorageError, match="newer segkit"):
        newest_valid(run.checkpoints)
    stored = yaml.safe_load(run.config.read_text())
    assert main("train", [*stored["overrides"], "trainer.max_epochs=3"]) == 74
    assert path.exists()


@pytest.mark.parametrize("stated", [0, -1, True, "1", None, 1.0, [1]])
def test_a_format_that_never_was_is_damage(run: RunDirectory, stated: object) -> None:
    path = checkpoint_path(run.checkpoints, 4) / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": stated}))
    with pytest.raises(StorageError, match="damaged"):
        read_manifest(path.parent)
