"""What lands in the journal, in several lives the same as in one."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.callbacks.toy import BATCH, KillAfter, Killed, train

from segkit.callbacks.checkpointing import Checkpointing
from segkit.callbacks.recording import Recording
from segkit.runs.checkpoints import newest_valid
from segkit.runs.manifest import verify_checkpoint


class Rows:
    """A journal in memory."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, str, float]] = []

    def metrics(self, values: Mapping[str, float], *, n: int, step: int, epoch: int) -> None:
        self.rows += [(n, step, epoch, key, value) for key, value in values.items()]

    def cut(self, n: int) -> None:
        self.rows = [row for row in self.rows if row[0] <= n]


def test_rows_by_step_and_by_epoch(tmp_path: Path) -> None:
    rows = Rows()
    recording = Recording(rows, every_n_steps=2)
    train(tmp_path, callbacks=(recording,))
    keys = [(n // BATCH, epoch, key) for n, step, epoch, key, _ in rows.rows if n == step * BATCH]
    by_epoch = lambda e: [(4 * e, e, "val/score"), (4 * e, e, "train/loss_epoch")]  # noqa: E731
    by_step = lambda s, e: [(s, e, "train/loss"), (s, e, "lr")]  # noqa: E731
    assert keys == [*by_step(2, 1), *by_step(4, 1), *by_epoch(1), *by_step(6, 2), *by_step(8, 2), *by_epoch(2)]
    assert recording.latest.keys() == {"val/score", "train/loss_epoch"}


def test_epoch_mean_is_the_mean_of_all_steps(tmp_path: Path) -> None:
    rows = Rows()
    train(tmp_path, epochs=1, callbacks=(Recording(rows, every_n_steps=1),))
    losses = [value for *_, key, value in rows.rows if key == "train/loss"]
    mean = next(value for *_, key, value in rows.rows if key == "train/loss_epoch")
    assert mean == pytest.approx(sum(losses) / 4, rel=1e-12)


@pytest.mark.parametrize("step", range(1, 8))
def test_journal_of_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path, step: int) -> None:
    whole, rows = Rows(), Rows()
    train(tmp_path / "whole", callbacks=(Recording(whole, every_n_steps=1),))
    checkpointing = Checkpointing(tmp_path, every_s=None)
    killer = KillAfter(checkpointing, save_step=step, die_step=step if step % 4 == 3 else step + 1)
    with pytest.raises(Killed):
        train(tmp_path, callbacks=(Recording(rows, every_n_steps=1), killer), checkpointing=checkpointing)
    path = newest_valid(tmp_path)
    rows.cut(verify_checkpoint(path).n)
    train(tmp_path, callbacks=(Recording(rows, every_n_steps=1),), resume=path)
    assert rows.rows == whole.rows
