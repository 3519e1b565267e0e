"""The averaged weights: the formula, what is validated, what is saved."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from tests.callbacks.toy import ToyModule, train

from segkit.callbacks.weight_averaging import WeightAveraging, warmed_decay
from segkit.runs.checkpoints import newest_valid, read_checkpoint, read_weights
from segkit.runs.manifest import checkpoint_path


class Trajectory(Callback):
    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_train_start(self, trainer, pl_module) -> None:
        self.on_train_batch_end(trainer, pl_module)

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        self.weights.append({k: v.detach().clone() for k, v in pl_module.state_dict().items()})


def test_decay_warms_up_to_its_value() -> None:
    assert warmed_decay(0.99, 0) == pytest.approx(0.1)
    assert warmed_decay(0.99, 10**6) == 0.99
    assert all(warmed_decay(0.9, t) <= warmed_decay(0.9, t + 1) for t in range(100))


def test_average_is_the_recursion_over_the_trajectory(tmp_path: Path) -> None:
    seen = Trajectory()
    train(tmp_path, callbacks=(WeightAveraging(0.9), seen))
    average = {k: v.double() for k, v in seen.weights[0].items()}
    for t, weights in enumerate(seen.weights[1:]):
        d = min(0.9, (1 + t) / (10 + t))
        average = {k: d * average[k] + (1 - d) * weights[k].double() for k in average}
    saved = read_weights(checkpoint_path(tmp_path, 8))
    for key, value in average.items():
        torch.testing.assert_close(saved[key].double(), value, rtol=1e-5, atol=1e-6)


def test_validated_weights_are_the_saved_ones_and_the_raw_ones_come_back(tmp_path: Path) -> None:
    class Watched(ToyModule):
        def on_validation_epoch_end(self) -> None:
            super().on_validation_epoch_end()
            self.after = {k: v.clone() for k, v in self.state_dict().items()}

        def validation_step(self, batch, batch_idx) -> None:
            super().validation_step(batch, batch_idx)
            self.during = {k: v.clone() for k, v in self.state_dict().items()}

    module, _ = train(tmp_path, epochs=1, module=Watched(), callbacks=(WeightAveraging(0.9),))
    contents = read_checkpoint(checkpoint_path(tmp_path, 4))
    assert contents.training is not None
    for key in contents.model:
        assert torch.equal(contents.model[key], module.during[key])
        assert torch.equal(contents.training[key], module.after[key])
    assert not torch.equal(contents.model["net.0.weight"], contents.training["net.0.weight"])


def test_checkpoint_without_average_begins_one(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)
    _, trainer = train(tmp_path, callbacks=(WeightAveraging(0.9),), resume=newest_valid(tmp_path))
    assert trainer.global_step == 8
    assert read_checkpoint(checkpoint_path(tmp_path, 8)).training is not None


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_impossible_decay_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        WeightAveraging(decay)
