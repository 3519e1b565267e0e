"""R5: `last` is the real last: what a resume loses is at most `checkpoint.every_s` of training, or one epoch.

Whatever the score does: rise, fall, become NaN, or not exist.
"""

import math
from pathlib import Path

import pytest
from lightning.pytorch import Callback, Trainer
from tests.callbacks.toy import ToyData, ToyModule, train

from segkit.callbacks import checkpointing as module_
from segkit.callbacks.checkpointing import Checkpointing
from segkit.runs.checkpoints import newest_valid
from segkit.runs.files import read_json
from segkit.runs.manifest import checkpoint_path, verify_checkpoint
from segkit.tracking.journal import read_rows
from segkit.workflows.train import run

NAN = math.nan
STEPS = 4
"""Of an epoch of the toy."""


class Unscored(ToyModule):
    """A validation that logs no score at all."""

    def on_validation_epoch_end(self) -> None:
        pass


class Looks(Callback):
    """Writes down, after every step, at which step a kill would let the run go on."""

    def __init__(self, root: Path) -> None:
        self.root, self.seen = root, {}

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        newest = newest_valid(self.root)
        self.seen[trainer.global_step] = 0 if newest is None else verify_checkpoint(newest).step
        if newest is not None:
            assert read_json(self.root / "last.json")["checkpoint"] == newest.name


@pytest.mark.parametrize(
    "scores",
    [[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1], [0.5, NAN, NAN, NAN], [NAN, NAN, NAN, NAN], None],
    ids=["rising", "falling", "turning NaN", "NaN", "absent"],
)
def test_the_resume_point_is_the_last_epoch_whatever_the_score(tmp_path: Path, scores: list[float] | None) -> None:
    looks = Looks(tmp_path)
    module = Unscored() if scores is None else ToyModule(scores=scores)
    train(tmp_path, epochs=4, callbacks=(looks,), module=module)
    assert looks.seen == {step: step // STEPS * STEPS for step in range(4 * STEPS)}
    assert read_json(tmp_path / "last.json")["step"] == 4 * STEPS


@pytest.mark.parametrize(("every_s", "distance"), [(1e-9, 1), (2.5, 3), (5.0, 5), (1e9, 12)])
def test_within_an_epoch_it_is_at_most_every_s_old(tmp_path: Path, monkeypatch, every_s: float, distance: int) -> None:
    """By a clock that advances a second a step; the epoch has twelve."""
    clock = Clock()
    monkeypatch.setattr(module_, "time", clock)
    looks = Looks(tmp_path)
    train(
        tmp_path,
        epochs=2,
        callbacks=(clock.ticks, looks),
        checkpointing=Checkpointing(tmp_path, every_s=every_s),
        data=ToyData(12),
    )
    ages = [step - resumes for step, resumes in looks.seen.items()]
    assert max(ages) == distance - 1  # the step that is due writes before the next begins
    assert looks.seen[12] == 12
    assert read_json(tmp_path / "last.json")["step"] == 24


class Clock:
    """Stands in for the module `time` where checkpoints ask how late it is."""

    def __init__(self) -> None:
        self.now = 0.0
        clock = self

        class Ticks(Callback):
            def on_train_batch_start(self, *_: object) -> None:
                clock.now += 1.0

        self.ticks = Ticks()

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize("overrides", [("data.split.tuning=0",), ()], ids=["nothing validated", "validated"])
def test_of_a_real_run_it_is_where_the_journal_ends(run_config, overrides: tuple[str, ...]) -> None:
    directory = run(run_config("last", *overrides)).directory
    rows = list(read_rows(directory.metrics))
    newest = verify_checkpoint(checkpoint_path(directory.checkpoints, max(row.step for row in rows)))
    assert newest.n == max(row.n for row in rows)
    assert read_json(directory.checkpoints / "last.json")["step"] == newest.step
