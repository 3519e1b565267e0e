"""R4: a truncated, emptied or bit-flipped checkpoint, or one of another run, is named and passed over.

Nothing damaged is ever loaded in silence; two generations stay, and none goes before the new one is verified.
"""

import logging
import random
import shutil
from pathlib import Path

import pytest
import torch
from tests.reliability.test_r02_write_boundaries import save, weight_of

from segkit.errors import StorageError
from segkit.runs.checkpoints import newest_valid, read_checkpoint
from segkit.runs.files import read_json
from segkit.runs.identity import claim, identity
from segkit.runs.index import load_index, refresh, rewind
from segkit.runs.manifest import MANIFEST, checkpoint_path, checkpoint_steps, is_foreign, manifest_of
from segkit.workflows.train import run


@pytest.fixture
def generations(tmp_path: Path) -> Path:
    """Three checkpoints of one run, steps 1, 2, 3."""
    root = tmp_path / "checkpoints"
    claim(root)
    for step in (1, 2, 3):
        save(root, step, score=1 - step / 10)
    return root


def test_a_mutation_anywhere_is_named_and_the_generation_before_is_used(generations: Path, size, caplog) -> None:
    draw = random.Random(4)
    newest = checkpoint_path(generations, 3)
    files = {file: file.read_bytes() for file in sorted(newest.iterdir())}
    whole = read_checkpoint(newest)
    survived = 0
    kinds = ["flip"] * size(24, 200) + ["truncate"] * size(6, 50)
    for number, kind in enumerate(kinds):
        file = list(files)[number % len(files)]
        content = files[file]
        if kind == "flip":
            at = draw.randrange(len(content))
            mutated = content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :]
        else:
            mutated = content[: 0 if number % 5 == 0 else draw.randrange(len(content))]
        file.write_bytes(mutated)
        caplog.clear()
        found = newest_valid(generations)
        if found == newest:  # only white space between the words of the manifest can change and say the same
            survived += 1
            assert file.name == MANIFEST
            assert mutated.split() == content.split() or chr(content[at]).isspace()
            again = read_checkpoint(newest)
            assert again.entry == whole.entry
            assert torch.equal(again.model["w"], whole.model["w"])
        else:
            assert found == checkpoint_path(generations, 2)
            assert "step-00000003" in caplog.text
            assert file.name in caplog.text
            with pytest.raises(StorageError, match=file.name.replace(".", r"\.")):
                read_checkpoint(newest)
        file.write_bytes(content)
    assert survived <= len(kinds) // 10
    assert newest_valid(generations) == newest


def test_all_generations_damaged_is_an_error_and_no_fresh_start(generations: Path) -> None:
    for step in (1, 2, 3):
        (checkpoint_path(generations, step) / "state.pt").write_bytes(b"")
    with pytest.raises(StorageError, match="No checkpoint of the run can be used") as stop:
        newest_valid(generations)
    assert all(f"step-0000000{step}" in str(stop.value) for step in (1, 2, 3))


def test_the_checkpoint_of_another_run_is_recognised(generations: Path, tmp_path: Path, caplog) -> None:
    other = tmp_path / "other"
    claim(other)
    save(other, 9, score=0.99)
    copied = shutil.copytree(checkpoint_path(other, 9), checkpoint_path(generations, 9))
    assert is_foreign(copied)
    assert newest_valid(generations) == checkpoint_path(generations, 3)
    assert "belongs to another run" in caplog.text
    assert "step-00000009" in caplog.text
    assert [entry.step for entry in load_index(generations)] == [1, 2, 3]
    refresh(generations)
    assert read_json(generations / "best.json")["step"] == 1  # though 0.99 is higher
    rewind(generations, 3)
    assert checkpoint_steps(generations) == [1, 2, 3]
    assert weight_of(shutil.copytree(generations / "step-00000009.of-another-run", other / "step-00000009b")) == 9


def test_checkpoints_without_an_identity_are_taken_as_they_are(tmp_path: Path) -> None:
    """Those of before there was one; the run that goes on with them has one from then on."""
    save(tmp_path, 1, score=0.1)
    assert "run" not in read_json(checkpoint_path(tmp_path, 1) / MANIFEST)
    claim(tmp_path)
    assert newest_valid(tmp_path) == checkpoint_path(tmp_path, 1)
    save(tmp_path, 2, score=0.2)
    assert read_json(checkpoint_path(tmp_path, 2) / MANIFEST)["run"] == identity(tmp_path)
    assert [entry.step for entry in load_index(tmp_path)] == [1, 2]


def test_nothing_goes_before_the_new_one_was_read_back(generations: Path, monkeypatch) -> None:
    """A disk that keeps other bytes than it was given: all that were there stay."""
    before = checkpoint_steps(generations)

    def stated(folder: Path, *arguments: object, **settings: object) -> str:
        text = manifest_of(folder, *arguments, **settings)
        (folder / "optimizer.pt").write_bytes((folder / "optimizer.pt").read_bytes()[:-1])
        return text

    monkeypatch.setattr("segkit.runs.checkpoints.manifest_of", stated)
    with pytest.raises(StorageError, match=r"optimizer\.pt"):
        save(generations, 4, score=0.5)
    assert checkpoint_steps(generations) == before
    assert weight_of(newest_valid(generations)) == 3


def test_two_generations_are_there_after_every_save(tmp_path: Path) -> None:
    for step in range(1, 8):
        save(tmp_path, step, score=float(step * 3 % 7))
        assert checkpoint_steps(tmp_path)[-2:] == [step - 1, step][-step:]


def test_a_run_goes_on_from_the_generation_before_and_says_which(
    run_config, end_state, assert_bitwise_equal, caplog
) -> None:
    config = run_config("damaged")
    folder = run(config).directory.path
    expected = end_state(folder)
    damaged = checkpoint_path(folder / "checkpoints", 6) / "model.safetensors"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 16
    damaged.unlink()  # its pages are mapped into what was just read
    damaged.write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="segkit"):
        assert_bitwise_equal(expected, end_state(run(config).directory.path))
    assert "step-00000006 cannot be used, going back to the one before it" in caplog.text
    assert "model.safetensors" in caplog.text
