"""A score that came later belongs to the bytes of its checkpoint and to nothing else."""

import json
import math
from pathlib import Path

import pytest
import torch

from segkit.runs.checkpoints import sweep, write_checkpoint
from segkit.runs.index import best, load_index, refresh
from segkit.runs.manifest import Entry, checkpoint_path, digest_of, read_manifest, verify_checkpoint
from segkit.runs.scores import SCORE, read_entry, unscored, write_score


@pytest.fixture
def written(tmp_path):
    """Factory of checkpoints; `score` is one that came later."""

    def write(step: int, *, score: float | None = None, own: float | None = None, value: float = 0.0) -> Path:
        validated = 2 * step if own is not None else 0
        entry = Entry(step=step, n=2 * step, epoch=step, validated_n=validated, score=own)
        folder = checkpoint_path(tmp_path, step)
        write_checkpoint(folder, entry, model={"w": torch.full((1,), value)}, optimizer={}, state={})
        if score is not None:
            digest = digest_of(read_manifest(folder))
            write_score(folder, score=score, per_case={"a": score, "b": None}, manifest=digest)
        return folder

    return write


def test_a_late_score_counts_like_any_other(written, tmp_path):
    written(1, score=0.9)
    written(2, own=0.5)
    written(3)
    entries = load_index(tmp_path)
    assert [(e.step, e.score, e.validated) for e in entries] == [(1, 0.9, True), (2, 0.5, True), (3, None, False)]
    assert entries[0].per_case["a"] == 0.9
    assert math.isnan(entries[0].per_case["b"])
    assert best(entries).step == 1
    for step in (1, 2, 3):
        verify_checkpoint(checkpoint_path(tmp_path, step))


def test_it_goes_with_its_checkpoint_and_stays_where_that_stays(written, tmp_path):
    for step, score in ((1, 0.9), (2, 0.1), (3, 0.2), (4, 0.3)):
        written(step, score=score)
    refresh(tmp_path)
    assert [path.parent.name for path in sorted(tmp_path.rglob(SCORE))] == [f"step-0000000{n}" for n in (1, 3, 4)]
    written(1, value=1.0)  # another checkpoint takes the name
    assert load_index(tmp_path)[0].score is None


def test_it_is_not_inherited(written, tmp_path, caplog):
    folder = written(1, score=0.9)
    kept = (folder / SCORE).read_bytes()
    written(1, value=1.0)
    (folder / SCORE).write_bytes(kept)
    assert read_entry(folder).score is None
    assert "belongs to another checkpoint of this name" in caplog.text


@pytest.mark.parametrize("damage", ["truncated", "flipped", "other number", "list", "link", "negative"])
def test_a_damaged_score_is_named_and_no_score(written, tmp_path, caplog, damage):
    path = written(1, score=0.5) / SCORE
    text = path.read_text()
    record = json.loads(text)
    path.unlink()
    if damage == "link":
        (tmp_path / "elsewhere").write_text(text)
        path.symlink_to(tmp_path / "elsewhere")
    elif damage == "truncated":
        path.write_text(text[: len(text) // 2])
    elif damage == "flipped":
        path.write_bytes(bytes([text.encode()[0] ^ 1]) + text.encode()[1:])
    elif damage == "other number":
        path.write_text(json.dumps({**record, "score": 0.99}))
    elif damage == "list":
        path.write_text("[]")
    else:
        record.pop("checksum")
        record["per_case"] = [1]
        path.write_text(json.dumps({**record, "checksum": digest_of(record)}))
    entry = read_entry(path.parent)
    assert (entry.score, entry.validated) == (None, False)
    assert f"step-00000001: {SCORE} is not used" in caplog.text


def test_no_score_is_a_validation_too(written):
    folder = written(1)
    write_score(folder, score=None, per_case={}, manifest=digest_of(read_manifest(folder)))
    entry = read_entry(folder)
    assert (entry.score, entry.validated_n, entry.validated) == (None, 2, False)
    assert unscored([entry], every_n_epochs=1, steps_per_epoch=1) == []


def test_a_kill_before_it_has_its_name_leaves_what_the_sweep_removes(written, tmp_path, monkeypatch):
    folder = written(1)
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if target.name == SCORE:
            raise SystemExit
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(SystemExit):
        write_score(folder, score=0.5, per_case={}, manifest="")
    monkeypatch.undo()
    assert sorted(p.name for p in folder.iterdir()) == [
        "MANIFEST.json",
        "model.safetensors",
        "optimizer.pt",
        "state.pt",
    ]
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".")] != []
    sweep(tmp_path)
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_checkpoint_that_is_gone_is_told_and_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_score(tmp_path / "step-00000001", score=0.5, per_case={}, manifest="")
    assert list(tmp_path.iterdir()) == []


def test_due_are_the_ends_of_every_so_many_epochs():
    entries = [
        Entry(step=0, n=0, epoch=0),
        Entry(step=3, n=6, epoch=1),
        Entry(step=4, n=8, epoch=1),  # within an epoch
        Entry(step=6, n=12, epoch=2, validated_n=12, score=0.5),
        Entry(step=12, n=24, epoch=4),
        Entry(step=9, n=18, epoch=3, validated_n=12),
    ]
    assert [e.step for e in unscored(entries, every_n_epochs=1, steps_per_epoch=3)] == [3, 9, 12]
    assert [e.step for e in unscored(entries, every_n_epochs=2, steps_per_epoch=3)] == [12]
