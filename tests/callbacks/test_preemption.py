"""Signals end a training with its state saved."""

import os
import signal
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from tests.callbacks.toy import train

from segkit.callbacks.checkpointing import Checkpointing
from segkit.callbacks.preemption import SIGNALS, Preemption
from segkit.errors import Preempted
from segkit.runs.checkpoints import newest_valid
from segkit.runs.manifest import checkpoint_steps


class Send(Callback):
    """Sends this process a signal before step `step`."""

    def __init__(self, number: signal.Signals, *, step: int) -> None:
        self.number, self.step = number, step

    def on_train_batch_start(self, trainer: Trainer, *_) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_saves_within_one_step_and_the_resumed_run_is_bitwise_the_same(
    tmp_path: Path, number: signal.Signals
) -> None:
    whole, _ = train(tmp_path / "whole")
    before = [signal.getsignal(each) for each in SIGNALS]
    checkpointing = Checkpointing(tmp_path, every_s=None)
    callbacks = (Preemption(checkpointing.preempt), Send(number, step=5))
    with pytest.raises(Preempted, match=number.name):
        train(tmp_path, callbacks=callbacks, checkpointing=checkpointing)
    assert max(checkpoint_steps(tmp_path)) == 6
    assert [signal.getsignal(each) for each in SIGNALS] == before
    module, _ = train(tmp_path, resume=newest_valid(tmp_path))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, module.state_dict()[name])
