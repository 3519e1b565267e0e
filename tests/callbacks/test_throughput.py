"""Times add up and waiting is waiting."""

import time
from collections.abc import Mapping
from pathlib import Path

from tests.callbacks.toy import ToyData, ToyModule, collate, train

from segkit.callbacks.throughput import Throughput


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
