import json
import re

import pytest
import torch
from tests.callbacks.toy import KillAfter, Killed, ToyData, ToyModule, train
from torch import nn

from segkit.callbacks.checkpointing import Checkpointing
from segkit.callbacks.step_phases import AUGMENTATION, BACKWARD, CALLBACKS, FORWARD, LOSS, OPTIMIZER, PHASES, WAIT
from segkit.callbacks.step_profile import StepProfile, Window

WINDOW = Window(left_out=2, timed=3, traced=2)


class WithLoss(ToyModule):
    def __init__(self) -> None:
        super().__init__()
        self.loss = nn.MSELoss()

    def training_step(self, batch, batch_idx):
        loss = self.loss(self.net(batch.image), batch.image.sum(1, keepdim=True))
        self.log("train/loss", loss, on_step=True, on_epoch=False, batch_size=1)
        return loss


def _profiled(tmp_path, *, batches, window=WINDOW, **settings):
    profile = StepProfile(tmp_path / "profile", window=window)
    module = WithLoss()
    profile.watch_loss(module.loss)
    train(tmp_path / "c", epochs=1, module=module, data=ToyData(batches), profiler=profile, **settings)
    return profile


def _rows(table):
    """Phase to (ms, share in percent)."""
    found = re.findall(r"^(\S[a-z ]*?) {2,}([0-9.]+) +([0-9.]+)%", table, flags=re.MULTILINE)
    return {phase: (float(ms), float(share)) for phase, ms, share in found}


@pytest.mark.parametrize("batches", [7, 8])  # the last traced step ends with the epoch, or where another one begins
def test_a_training_leaves_a_table_and_a_trace(tmp_path, batches):
    profile = _profiled(tmp_path, batches=batches)
    assert {path.name for path in profile.folder.iterdir()} == {"table.txt", "trace.json"}
    table = profile.table.read_text()
    rows = _rows(table)
    assert list(rows) == [*PHASES, "step"]
    step, _ = rows.pop("step")
    assert sum(ms for ms, _ in rows.values()) == pytest.approx(step, abs=0.1 * len(rows))
    assert all(rows[phase][0] > 0 for phase in (WAIT, FORWARD, BACKWARD, OPTIMIZER, CALLBACKS))
    assert "mean of 3 after the first 2" in table
    assert "mean of the 2 after those" in table
    assert len(re.findall(r"^aten::\w+ +\d+ +\d+\.\d\d$", table, flags=re.MULTILINE)) > 10
    ranges = [event for event in json.loads(profile.trace.read_text())["traceEvents"] if event.get("ph") == "X"]
    count = {phase: sum(event["name"] == phase for event in ranges) for phase in PHASES}
    assert {phase: count[phase] for phase in (WAIT, FORWARD, LOSS, BACKWARD)} == dict.fromkeys(
        (WAIT, FORWARD, LOSS, BACKWARD), 2
    )
    assert count[AUGMENTATION] == 2  # one for each batch, here with nothing to do
    assert count[OPTIMIZER] >= 2
    for phase, operator, calls in ((FORWARD, "aten::addmm", 2), (LOSS, "aten::mse_loss", 1)):
        whole = next(event for event in ranges if event["name"] == phase)
        start, stop = whole["ts"], whole["ts"] + whole["dur"]
        inside = [e for e in ranges if e["name"] == operator and start <= e["ts"] and e["ts"] + e["dur"] <= stop]
        assert len(inside) == calls, "two linear layers, one loss"


def test_a_training_that_is_too_short_leaves_what_was_timed(tmp_path, caplog):
    profile = _profiled(tmp_path / "a", batches=4)
    assert {path.name for path in profile.folder.iterdir()} == {"table.txt"}
    assert "mean of 2 after the first 2" in profile.table.read_text()
    assert not caplog.records
    profile = _profiled(tmp_path / "b", batches=2)
    assert not profile.folder.exists()
    assert "raise trainer.steps_per_epoch" in caplog.text


@pytest.mark.parametrize("step", [1, 4, 6])  # before the timed steps, among them, among the traced ones
def test_a_training_that_fails_leaves_no_file_and_nothing_watching(tmp_path, step):
    end = KillAfter(Checkpointing(tmp_path / "never"), save_step=None, die_step=step)
    with pytest.raises(Killed):
        _profiled(tmp_path, batches=9, callbacks=(end,))
    assert not (tmp_path / "profile").exists()
    assert not torch.autograd._profiler_enabled()


def test_what_is_watched_trains_as_what_is_not(tmp_path):
    watched, plain = WithLoss(), WithLoss()
    profile = StepProfile(tmp_path / "profile", window=WINDOW)
    profile.watch_loss(watched.loss)
    train(tmp_path / "a", epochs=1, module=watched, data=ToyData(9), profiler=profile)
    train(tmp_path / "b", epochs=1, module=plain, data=ToyData(9))
    for name, value in plain.state_dict().items():
        assert torch.equal(watched.state_dict()[name], value), name


def test_a_rank_beside_the_first_writes_nothing(tmp_path):
    profile = StepProfile(None, window=WINDOW)
    train(tmp_path / "c", epochs=1, data=ToyData(9), profiler=profile)
    assert {path.name for path in tmp_path.iterdir()} == {"c"}


def test_waiting_for_data_is_still_counted(tmp_path):
    profile = _profiled(tmp_path, batches=4)
    assert profile.waited > 0
