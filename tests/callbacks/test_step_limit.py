"""A run limited in steps ends there, in one life or several."""

from pathlib import Path

import pytest
import torch
from tests.callbacks.toy import KillAfter, Killed, train

from segkit.callbacks.checkpointing import Checkpointing
from segkit.callbacks.step_limit import StepLimit
from segkit.runs.checkpoints import newest_valid
from segkit.runs.index import last, load_index


def test_stops_within_an_epoch_validated_and_saved(tmp_path: Path) -> None:
    _, trainer = train(tmp_path, epochs=9, callbacks=(StepLimit(6),))
    entry = last(load_index(tmp_path))
    assert trainer.global_step == entry.step == 6
    assert entry.validated


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_stopped_and_resumed_is_bitwise_the_same(tmp_path: Path, step: int) -> None:
    whole, _ = train(tmp_path / "whole", epochs=9, callbacks=(StepLimit(6),))
    checkpointing = Checkpointing(tmp_path, every_s=None)
    killer = KillAfter(checkpointing, save_step=step, die_step=step)
    with pytest.raises(Killed):
        train(tmp_path, epochs=9, callbacks=(StepLimit(6), killer), checkpointing=checkpointing)
    module, trainer = train(tmp_path, epochs=9, callbacks=(StepLimit(6),), resume=newest_valid(tmp_path))
    assert trainer.global_step == 6
    for name, value in whole.state_dict().items():
        assert torch.equal(value, module.state_dict()[name])


def test_a_finished_run_takes_no_further_step(tmp_path: Path) -> None:
    train(tmp_path, epochs=9, callbacks=(StepLimit(6),))
    _, trainer = train(tmp_path, epochs=9, callbacks=(StepLimit(6),), resume=newest_valid(tmp_path))
    assert trainer.global_step == 6
