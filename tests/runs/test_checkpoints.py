"""A checkpoint is whole or absent, and every byte of it is accounted for."""

import math
import os
import pickle
from pathlib import Path

import pytest
import torch

from segkit.errors import StorageError
from segkit.runs import checkpoints
from segkit.runs.checkpoints import newest_valid, read_checkpoint, read_weights, sweep, write_checkpoint
from segkit.runs.files import read_json
from segkit.runs.manifest import (
    MANIFEST,
    MODEL,
    OPTIMIZER,
    STATE,
    Entry,
    checkpoint_path,
    checkpoint_steps,
    verify_checkpoint,
)

ENTRY = Entry(step=7, n=14, epoch=1, validated_n=14, score=0.1 + 0.2, per_case={"a": 0.5, "b": math.nan})


def write(root: Path, step: int = 7, **settings) -> Path:
    linear = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(linear.parameters())
    linear(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    arguments = {
        "model": dict(linear.state_dict()),
        "optimizer": {"optimizer_states": [optimizer.state_dict()]},
        "state": {"epoch": 1, "lr_schedulers": [{"last_epoch": 3}], "callbacks": {"x": (1, None, "y")}},
    } | settings
    return write_checkpoint(checkpoint_path(root, step), ENTRY, **arguments)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    model = {
        "w": torch.randn(3, 4).T,  # not contiguous
        "half": torch.randn(5).bfloat16(),
        "count": torch.tensor(3),
        "flags": torch.tensor([True, False]),
        "empty": torch.zeros(0, 2),
    }
    model["tied"] = model["w"]
    model["view"] = torch.arange(10.0)[3:5]
    contents = read_checkpoint(write(tmp_path, model=model, training={"w": torch.ones(2)}))
    assert contents.model.keys() == model.keys()
    for key, value in model.items():
        assert contents.model[key].dtype == value.dtype
        assert torch.equal(contents.model[key], value)
    assert torch.equal(contents.training["w"], torch.ones(2))
    assert contents.state["callbacks"] == {"x": (1, None, "y")}
    assert contents.entry.score == ENTRY.score
    assert contents.entry.per_case["a"] == 0.5
    assert math.isnan(contents.entry.per_case["b"])


def test_layout(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert path.name == "step-00000007"
    assert {p.name for p in path.iterdir()} == {MODEL, OPTIMIZER, STATE, MANIFEST}
    manifest = read_json(path / MANIFEST)
    assert manifest["format"] == 1
    assert manifest["contents"] == ["callbacks", "epoch", "lr_schedulers"]
    assert {p.name for p in tmp_path.iterdir()} == {path.name}


def test_one_flipped_bit_anywhere_is_detected(tmp_path: Path) -> None:
    path = write(tmp_path)
    places = torch.Generator().manual_seed(0)
    for file in sorted(path.iterdir()):
        content = file.read_bytes()
        for _ in range(60):
            at = int(torch.randint(len(content), (1,), generator=places))
            bit = int(torch.randint(8, (1,), generator=places))
            damaged = bytearray(content)
            damaged[at] ^= 1 << bit
            file.write_bytes(damaged)
            try:
                entry = verify_checkpoint(path)
            except StorageError:
                continue
            # Only white space of the manifest may change without changing what it says.
            assert file.name == MANIFEST
            assert chr(content[at]).isspace()
            assert entry.to_json() == ENTRY.to_json()
        file.write_bytes(content)
    verify_checkpoint(path)


def test_truncated_and_missing_files_are_detected(tmp_path: Path) -> None:
    path = write(tmp_path)
    for file in sorted(path.iterdir()):
        content = file.read_bytes()
        for size in (0, 1, len(content) // 2, len(content) - 1):
            file.write_bytes(content[:size])
            if file.name == MANIFEST and size == len(content) - 1 and content.endswith(b"\n"):
                continue
            with pytest.raises(StorageError, match=file.name.replace(".", r"\.")):
                read_checkpoint(path)
        file.unlink()
        with pytest.raises(StorageError):
            read_checkpoint(path)
        file.write_bytes(content)
    read_checkpoint(path)


def test_damage_falls_back_to_the_generation_before_by_name(tmp_path: Path, caplog) -> None:
    for step in (1, 2, 3):
        write(tmp_path, step)
    assert newest_valid(tmp_path) == checkpoint_path(tmp_path, 3)
    (checkpoint_path(tmp_path, 3) / MODEL).write_bytes(b"")
    assert newest_valid(tmp_path) == checkpoint_path(tmp_path, 2)
    assert "step-00000003" in caplog.text
    for step in (1, 2):
        (checkpoint_path(tmp_path, step) / STATE).unlink()
    with pytest.raises(StorageError, match="No checkpoint of the run can be used"):
        newest_valid(tmp_path)


def test_no_checkpoint_is_no_fault(tmp_path: Path) -> None:
    assert newest_valid(tmp_path) is None
    assert newest_valid(tmp_path / "absent") is None


def test_newer_format_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("segkit.runs.manifest.FORMAT", 2)
    path = write(tmp_path)
    monkeypatch.undo()
    with pytest.raises(StorageError, match="newer segkit"):
        read_checkpoint(path)


def test_objects_are_refused_when_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\.pt must hold tensors and plain values"):
        write(tmp_path, state={"path": Path("/")})
    assert list(tmp_path.iterdir()) == []


class Evil:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return (os.system, (self.command,))


def test_hostile_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch) -> None:
    # A checkpoint from others can have true checksums: reading itself must execute nothing.
    monkeypatch.setattr(checkpoints, "load_plain", lambda path: {})
    path = write(tmp_path, state={"x": Evil(f"touch {tmp_path}/pwned")})
    monkeypatch.undo()
    with pytest.raises(StorageError, match="cannot be read"):
        read_checkpoint(path)
    assert not (tmp_path / "pwned").exists()


def test_manifest_cannot_point_out_of_its_folder(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "secret").write_text("x")
    (path / MODEL).unlink()
    (path / MODEL).symlink_to(tmp_path / "secret")
    with pytest.raises(StorageError):
        read_checkpoint(path)


@pytest.mark.parametrize("at", ["save_file", "_save_plain", "sync_file", "atomic_write", "verify_checkpoint"])
def test_a_failure_at_any_stage_changes_nothing(tmp_path: Path, monkeypatch, at: str) -> None:
    write(tmp_path, 1)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, at, full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, 2)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert checkpoint_steps(tmp_path) == [1]


@pytest.mark.parametrize("at", ["_save_plain", "sync_file", "atomic_write", "verify_checkpoint", "sync_folder"])
def test_a_kill_at_any_stage_leaves_old_or_new_whole(tmp_path: Path, monkeypatch, at: str) -> None:
    write(tmp_path, 1)
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(checkpoints, at, lambda *_, **__: os._exit(9))
        write(tmp_path, 2)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    expected = 2 if at == "sync_folder" else 1  # the rename is the border
    assert newest_valid(tmp_path) == checkpoint_path(tmp_path, expected)
    sweep(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {f"step-0000000{step}" for step in range(1, expected + 1)}


def test_weights_alone_need_only_their_own_file(tmp_path: Path) -> None:
    path = write(tmp_path)
    (path / OPTIMIZER).unlink()
    assert read_weights(path).keys() == {"weight", "bias"}


def test_replacing_a_checkpoint(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, model={"w": torch.zeros(1)})
    assert read_weights(checkpoint_path(tmp_path, 7)).keys() == {"w"}
    assert len(list(tmp_path.iterdir())) == 1


def test_files_hold_no_class_outside_torch(tmp_path: Path) -> None:
    state = torch.load(write(tmp_path) / STATE, weights_only=True)
    assert pickle.dumps(state)
