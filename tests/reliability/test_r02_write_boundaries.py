"""R2: killed at any border of any write of a checkpoint's save, the newest readable checkpoint is the old or the new.

The pointers name nothing that is not there, the next start removes what was left, and the next save works.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.reliability.borders import kill_at, spread

from segkit.runs.checkpoints import newest_valid, read_checkpoint, sweep, write_checkpoint
from segkit.runs.files import read_json
from segkit.runs.identity import claim
from segkit.runs.index import load_index, refresh, rewind
from segkit.runs.manifest import Entry, checkpoint_path, checkpoint_steps, verify_checkpoint

NEW = 4
"""The step that is saved, on top of those that are there."""


def save(root: Path, step: int, *, score: float, weight: float | None = None) -> None:
    """Write as training does: the checkpoint, then index and pointers, then what need not be kept goes."""
    entry = Entry(step=step, n=2 * step, epoch=step, validated_n=2 * step, score=score, per_case={"a": score})
    value = float(step) if weight is None else weight
    write_checkpoint(
        checkpoint_path(root, step),
        entry,
        model={"w": torch.full((3,), value)},
        training={"w": torch.full((3,), -value)},
        optimizer={"moments": torch.full((3,), value)},
        state={"epoch": step, "callbacks": {"x": [1, None]}},
    )
    refresh(root, top_k=1, keep=2)


def saves_the_next(root: Path) -> None:
    save(root, NEW, score=0.8)


def saves_the_first(root: Path) -> None:
    save(root, NEW, score=0.8)


def replaces_the_newest(root: Path) -> None:
    save(root, 3, score=0.95, weight=30.0)


def replaces_the_only_one(root: Path) -> None:
    save(root, 1, score=0.95, weight=30.0)


def rewinds(root: Path) -> None:
    rewind(root, 2)


SCENARIOS = [  # what is written, the steps that are there, the newest step before and after it
    (saves_the_next, (1, 2, 3), 3, NEW),
    (saves_the_first, (), None, NEW),
    (replaces_the_newest, (1, 2, 3), 3, 3),
    (replaces_the_only_one, (1,), 1, 1),
    (rewinds, (1, 2, 3), 3, 2),
]


def weight_of(path: Path | None) -> float | None:
    """What tells one checkpoint from another, of a checkpoint that was read whole; None where there is none."""
    if path is None:
        return None
    contents = read_checkpoint(path)
    value = float(contents.model["w"][0])
    assert torch.equal(contents.training["w"], torch.full((3,), -value))
    assert torch.equal(contents.optimizer["moments"], torch.full((3,), value))
    assert contents.state["epoch"] == contents.entry.step
    return value


def assert_pointers_hold(root: Path) -> None:
    """Whatever index and pointers name is there and whole."""
    named = [read_json(root / name)["step"] for name in ("last.json", "best.json") if (root / name).exists()]
    if (root / "index.json").exists():
        named += [entry["step"] for entry in read_json(root / "index.json")["checkpoints"]]
    for step in named:
        verify_checkpoint(checkpoint_path(root, step))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("act", "present", "old", "new"), SCENARIOS, ids=[s[0].__name__ for s in SCENARIOS])
def test_killed_at_every_border(
    tmp_path: Path, size, monkeypatch, act: Callable[[Path], None], present: tuple[int, ...], old: int | None, new: int
) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)  # of what is written here, beside the shim: no power is cut
    before = tmp_path / "before"
    claim(before)
    for step in present:
        save(before, step, score=1 - step / 10)
    after = shutil.copytree(before, tmp_path / "after")
    points = spread(lambda: act(after), calls=size(8, 10**6), byte_distance=size(1500, 8))
    wholes = {weight_of(newest_valid(before)), weight_of(newest_valid(after))}
    assert max(checkpoint_steps(after)) == new
    seen = set()
    for border in points:
        root = shutil.copytree(before, tmp_path / f"killed-{border}")
        kill_at(border, lambda root=root: act(root))
        assert_pointers_hold(root)
        left = weight_of(newest_valid(root))
        assert left in wholes or (old == new and left == weight_of_the_one_before(before)), border
        sweep(root)
        assert [p.name for p in root.iterdir() if p.name.startswith(".")] == [], border
        assert weight_of(newest_valid(root)) in wholes, border
        assert_pointers_hold(root)
        seen.add(weight_of(newest_valid(root)))
        save(root, NEW + 1, score=0.1)
        assert weight_of(newest_valid(root)) == NEW + 1
        assert read_json(root / "last.json")["step"] == NEW + 1
        assert [entry["step"] for entry in read_json(root / "index.json")["checkpoints"]] == checkpoint_steps(root)
        assert [entry.step for entry in load_index(root)] == checkpoint_steps(root)
        assert len(checkpoint_steps(root)) >= (2 if old is not None or len(seen) == 2 else 1)
        shutil.rmtree(root)
    assert seen == wholes  # the kills lay on both sides of the border between old and new


def weight_of_the_one_before(root: Path) -> float | None:
    """While a checkpoint is being replaced by another of its name, only the generation before has its own."""
    steps = checkpoint_steps(root)[:-1]
    return weight_of(checkpoint_path(root, steps[-1])) if steps else None
