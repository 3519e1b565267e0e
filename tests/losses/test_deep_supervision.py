"""Deep supervision: weights, levels, and what is carried down to them."""

import pytest
import torch

from segkit.losses.cross_entropy import CrossEntropyLoss
from segkit.losses.deep_supervision import OPTIONAL_FIELDS, DeepSupervision, level_weights
from segkit.losses.loss import Loss
from segkit.types import Target


class Recorder(Loss):
    """Remembers the targets it is given."""

    def __init__(self, *needs):
        super().__init__()
        self.needs = frozenset(needs)
        self.seen = []

    def forward(self, logits, target):
        self.seen.append(target)
        return logits.mean()


def full_target(size=(8, 12)):
    label = torch.randint(-1, 3, (2, 1, *size), generator=torch.Generator().manual_seed(0))
    return Target(
        label=label,
        instances=label + 1,
        cells=label + 2,
        weight=label.float(),
        labels_present=torch.ones(2, 3, dtype=torch.bool),
        spacing=(1.0, 0.5),
    )


def test_weights_halve_and_sum_to_one():
    assert level_weights(1) == (1.0,)
    assert level_weights(4) == pytest.approx((8 / 15, 4 / 15, 2 / 15, 1 / 15))  # nnU-Net with five heads


def test_sum_over_levels_against_targets_taken_by_hand():
    target = full_target()
    logits = [torch.randn(2, 3, 8 // s, 12 // s, generator=torch.Generator().manual_seed(s)) for s in (1, 2, 4)]
    loss = CrossEntropyLoss()
    # nearest-exact on a factor f takes voxel f/2 of each block
    labels = [target.label, target.label[:, :, 1::2, 1::2], target.label[:, :, 2::4, 2::4]]
    expected = sum(w * loss(x, Target(label=y)) for w, x, y in zip((4 / 7, 2 / 7, 1 / 7), logits, labels, strict=True))
    torch.testing.assert_close(DeepSupervision(loss)(logits, target), expected)


def test_one_tensor_is_the_loss_itself():
    target = full_target()
    logits = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    loss = CrossEntropyLoss()
    assert DeepSupervision(loss)(logits, target) == loss(logits, target) == DeepSupervision(loss)([logits], target)


@pytest.mark.parametrize("needs", [(), ("cells",), ("instances", "weight", "labels_present")])
def test_fields_that_nobody_reads_are_not_carried_down(needs):
    recorder = Recorder(*needs)
    supervised = DeepSupervision(recorder)
    assert supervised.needs == set(needs)
    target = full_target()
    supervised([torch.zeros(2, 3, 8, 12), torch.zeros(2, 3, 4, 6)], target)
    full, half = recorder.seen
    # The finest level is the target itself, not a copy.
    assert full.label is target.label
    assert half.label.shape == (2, 1, 4, 6)
    assert half.spacing == (2.0, 1.0)
    for seen in recorder.seen:
        assert {name for name in OPTIONAL_FIELDS if getattr(seen, name) is not None} == set(needs)


def test_every_level_gets_a_gradient_of_its_weight():
    logits = [torch.zeros(1, 2, n, n, requires_grad=True) for n in (4, 2, 1)]
    DeepSupervision(Recorder())(logits, Target(label=torch.zeros(1, 1, 4, 4, dtype=torch.int64))).backward()
    # The recorder's mean has gradients that sum to 1.
    assert [level.grad.sum().item() for level in logits] == pytest.approx([4 / 7, 2 / 7, 1 / 7])
