import pytest
import torch

from segkit.metrics.overlap import overlap_by_class
from segkit.metrics.training_dice import TrainingDice
from segkit.ops.confusion import confusion


@pytest.mark.parametrize("size", [(9, 7), (5, 6, 4)])
def test_mean_over_samples_of_the_definition_of_validation(size):
    generator = torch.Generator().manual_seed(0)
    metric = TrainingDice(4)
    by_sample = []
    for _ in range(3):
        logits = torch.randn((2, 4, *size), generator=generator)
        label = torch.randint(-1, 3, (2, 1, *size), generator=generator)  # class 3 never in a reference
        label[0][label[0] == 2] = 0  # class 2 in every second sample only
        metric.update(logits, label)
        for sample in range(2):
            counts = confusion(logits[sample].argmax(0), label[sample, 0], 4)
            by_sample.append(torch.from_numpy(overlap_by_class(counts).dice))
    expected = torch.stack(by_sample).nanmean(dim=0)
    torch.testing.assert_close(metric.compute().double(), expected, equal_nan=True, rtol=1e-6, atol=0)
    assert metric.compute()[3].isnan()


def test_a_class_that_was_not_annotated_is_not_counted():
    """Its voxels are background in the label: what is predicted of it there counts for no class that was annotated."""
    metric = TrainingDice(3)
    label = torch.zeros(1, 1, 4, 4, dtype=torch.long)
    label[..., 0, :] = 1
    predicted = label.clone()
    predicted[..., 2:, :] = 2
    metric.update(torch.nn.functional.one_hot(predicted[:, 0], 3).movedim(-1, 1).float(), label)
    assert metric.compute()[1] == 1
    assert metric.compute()[2].isnan()


def test_reset_forgets():
    metric = TrainingDice(2)
    label = torch.ones(1, 1, 4, 4, dtype=torch.long)
    metric.update(torch.zeros(1, 2, 4, 4), label)
    assert metric.compute()[1] == 0
    metric.reset()
    metric.update(torch.stack([torch.zeros(4, 4), torch.ones(4, 4)])[None], label)
    assert metric.compute()[1] == 1
