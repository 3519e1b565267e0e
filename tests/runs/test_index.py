"""Index and pointers agree with the folder; the right checkpoints stay."""

import itertools
import shutil
from pathlib import Path

import pytest
import torch

from segkit.runs.checkpoints import write_checkpoint
from segkit.runs.files import read_json
from segkit.runs.index import best, kept, last, load_index, refresh, rewind
from segkit.runs.manifest import MANIFEST, Entry, checkpoint_path, checkpoint_steps


def entry(step: int, score: float | None, *, validated: bool = True) -> Entry:
    return Entry(step=step, n=2 * step, epoch=step, validated_n=2 * step if validated else 0, score=score)


def write(root: Path, step: int, score: float | None) -> None:
    write_checkpoint(
        checkpoint_path(root, step), entry(step, score), model={"w": torch.zeros(1)}, optimizer={}, state={}
    )


def test_best_is_the_highest_and_the_earliest_of_equals() -> None:
    entries = [entry(1, 0.5), entry(2, 0.7), entry(3, 0.7), entry(4, None), entry(5, float("nan"))]
    for order in itertools.permutations(entries):
        assert best(order) == entries[1]
        assert last(order).step == 5
    assert best([entry(1, None)]) is None
    assert best([entry(1, 0.9, validated=False)]) is None
    assert best([entry(1, -2.0), entry(2, 0.0)]).step == 2


def test_kept_are_the_newest_and_the_best() -> None:
    scores = [0.9, 0.1, 0.8, 0.2, 0.3]
    entries = [entry(step, score) for step, score in enumerate(scores, start=1)]
    assert kept(entries, top_k=1, keep=2) == {1, 4, 5}
    assert kept(entries, top_k=2, keep=3) == {1, 3, 4, 5}
    assert kept(entries[:1]) == {1}


@pytest.mark.parametrize(("top_k", "keep"), [(0, 2), (1, 1)])
def test_two_generations_and_the_best_are_the_least(top_k: int, keep: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        kept([], top_k=top_k, keep=keep)


def test_refresh_prunes_and_points(tmp_path: Path) -> None:
    for step, score in enumerate([0.9, 0.1, 0.8, 0.2], start=1):
        write(tmp_path, step, score)
        refresh(tmp_path)
    assert checkpoint_steps(tmp_path) == [1, 3, 4]
    assert read_json(tmp_path / "best.json")["checkpoint"] == "step-00000001"
    assert read_json(tmp_path / "last.json")["checkpoint"] == "step-00000004"
    assert [e["step"] for e in read_json(tmp_path / "index.json")["checkpoints"]] == [1, 3, 4]


def test_index_agrees_with_the_folder_after_a_users_rm(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write(tmp_path, step, 0.1 * step)
    refresh(tmp_path, top_k=3)
    shutil.rmtree(checkpoint_path(tmp_path, 3))
    assert [e.step for e in load_index(tmp_path)] == [1, 2]
    refresh(tmp_path, top_k=3)
    assert read_json(tmp_path / "best.json")["step"] == 2
    assert read_json(tmp_path / "last.json")["step"] == 2
    for step in (1, 2):
        shutil.rmtree(checkpoint_path(tmp_path, step))
    refresh(tmp_path)
    assert not (tmp_path / "best.json").exists()


def test_unreadable_manifest_is_named_and_left_out(tmp_path: Path, caplog) -> None:
    write(tmp_path, 1, 0.5)
    write(tmp_path, 2, 0.6)
    (checkpoint_path(tmp_path, 2) / MANIFEST).write_text("{")
    assert [e.step for e in load_index(tmp_path)] == [1]
    assert "step-00000002" in caplog.text


def test_rewind_forgets_what_came_later(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write(tmp_path, step, 0.1 * step)
    refresh(tmp_path, keep=3)
    rewind(tmp_path, 2)
    assert checkpoint_steps(tmp_path) == [1, 2]
    assert read_json(tmp_path / "best.json")["step"] == 2


def test_a_checkpoint_in_use_stays(tmp_path: Path) -> None:
    entries = [entry(step, None) for step in range(1, 6)]
    assert kept(entries, leased={2, 9}) == {2, 4, 5}
    for step in range(1, 6):
        write(tmp_path, step, None)
        refresh(tmp_path, leased={2})
    assert checkpoint_steps(tmp_path) == [2, 4, 5]
    refresh(tmp_path)
    assert checkpoint_steps(tmp_path) == [4, 5]
