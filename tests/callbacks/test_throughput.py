"""Times add up and waiting is waiting."""

import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.callbacks.toy import ToyData, ToyModule, collate, train

from segkit.callbacks.throughput import Throughput, WaitClock


class Times:
    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def timing(self, values: Mapping[str, float], *, n: int, step: int, epoch: int) -> None:
        self.rows.append((epoch, dict(values)))


def slow_collate(numbers: list[int]) -> object:
    time.sleep(0.02)
    return collate(numbers)


class SlowData(ToyData):
    def train_dataloader(self):
        loader = super().train_dataloader()
        loader.collate_fn = slow_collate
        return loader


class SlowModule(ToyModule):
    def training_step(self, batch, batch_idx):
        time.sleep(0.02)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx) -> None:
        time.sleep(0.1)
        super().validation_step(batch, batch_idx)


def test_share_of_waiting_is_measured_and_validation_is_apart(tmp_path: Path) -> None:
    times = Times()
    train(tmp_path, callbacks=(Throughput(times),), data=SlowData(), module=SlowModule())
    assert [epoch for epoch, _ in times.rows] == [1, 2]
    for _, row in times.rows:
        assert 0.3 < row["time/data_wait"] < 0.7
        assert row["time/epoch_s"] - row["time/train_s"] >= 0.2
        assert row["time/samples_per_s"] < 8 / (4 * 0.04)
        assert row["memory/process_gb"] > 0.05


def test_fast_data_is_not_waited_for(tmp_path: Path) -> None:
    times = Times()
    train(tmp_path, epochs=1, callbacks=(Throughput(times),), module=SlowModule())
    assert times.rows[0][1]["time/data_wait"] < 0.2


class Queue:
    """A device that works off what it is given, and the host's time beside it; a stand-in for a GPU's stream."""

    def __init__(self) -> None:
        self.now = self.busy_until = 0.0

    def give(self, seconds: float) -> None:
        self.busy_until = max(self.now, self.busy_until) + seconds

    def mark(self) -> "Moment":
        return Moment(self, max(self.now, self.busy_until))


class Moment:
    def __init__(self, queue: Queue, at: float) -> None:
        self.queue, self.at = queue, at

    def synchronize(self) -> None:
        self.queue.now = max(self.queue.now, self.at)

    def elapsed_time(self, later: "Moment") -> float:
        return 1000 * (later.at - self.at)


def test_on_a_gpu_only_the_time_without_work_is_waiting() -> None:
    """Steps of 1 s; fetching takes 0.4 s, hidden behind the step, and once 2.5 s, of which the step hides one."""
    queue, clock = Queue(), WaitClock()
    clock.mark = queue.mark
    for fetch in (0.4, 0.4, 2.5, 0.4):
        clock.start("[_TrainingEpochLoop].train_dataloader_next")
        queue.now += fetch
        clock.stop("[_TrainingEpochLoop].train_dataloader_next")
        queue.give(1.0)
    # The first fetch finds nothing to do; then the device has 1 s of work, less what was fetched since.
    assert clock.waited == pytest.approx(0.4 + 0.0 + (2.5 - 1.6) + 0.0)
    clock.reset()
    assert clock.waited == 0.0
