"""Scores of components: cells without a component, and means that nobody empty takes part in."""

import pytest
import torch
from tests.losses.lesions import sample, target_of
from tests.ops.test_ranks import on_ranks

from segkit.errors import UsageError
from segkit.losses.blob_dice import blob_dice_loss
from segkit.losses.component_counts import component_counts
from segkit.losses.component_scores import background_of_cells, is_scored, mean_of, require_settings, sum_of_means
from segkit.ops import ranks
from segkit.types import Target


def line_target(label, cells, instances=None):
    fields = [torch.tensor(field).view(1, 1, 1, -1) for field in (label, cells, instances or cells)]
    return Target(label=fields[0], cells=fields[1], instances=fields[2], num_instances=3)


def foreground(p):
    """Logits of two classes with these probabilities of class 1."""
    p = torch.tensor(p, dtype=torch.float64).view(1, 1, -1)
    return torch.stack([(1 - p).log(), p.log()], 1)


def test_cells_without_a_component_are_shared_equally():
    # Cell 3 has no component here: its 0.6 goes to cells 1 and 2, half each.
    target = line_target([1, 0, 0, 1, 0, 0], [1, 1, 2, 2, 3, 3])
    counts = component_counts(foreground([0.9, 0.1, 0.2, 0.9, 0.25, 0.35]), target, of="cells")
    background = background_of_cells(counts, is_scored(counts))
    torch.testing.assert_close(background.foreground[0, :2], torch.tensor([0.4, 0.5], dtype=torch.float64))
    torch.testing.assert_close(background.voxels[0, :2], torch.tensor([2.0, 2.0], dtype=torch.float64))


def test_sharing_keeps_the_total_of_false_positives():
    logits, target = sample((9, 8), batch=4)
    counts = component_counts(logits, target, of="cells")
    scored = is_scored(counts, min_voxels=2)
    shared = (background_of_cells(counts, scored).foreground * scored).sum(1)
    expected = counts.outside.foreground.sum(1) * scored.any(1)
    torch.testing.assert_close(shared, expected)


def test_a_false_positive_in_a_cell_without_its_component_costs():
    target = line_target([1, 0, 0, 0], [1, 1, 2, 2])
    clean, alarm = (
        blob_dice_loss(foreground([0.9, 0.01, 0.01, p]), target, false_positives="voronoi") for p in (0.01, 0.5)
    )
    assert alarm > clean + 0.1


def test_a_mean_without_anything_to_count_is_zero_with_a_graph():
    values = torch.ones(2, 3, requires_grad=True)
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    total = mean_of(values, nothing, axis=1).sum() + sum_of_means((values, nothing))
    total.backward()
    assert total.item() == 0
    assert values.grad.count_nonzero() == 0


def test_sum_of_means_by_hand():
    found = (torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False]))
    empty = (torch.tensor([5.0, 7.0, 0.25]), torch.tensor([False, False, True]))
    assert sum_of_means(found, empty).item() == 2.25


@pytest.mark.parametrize("settings", [{"smooth": 0.0, "min_voxels": 1}, {"smooth": 1e-5, "min_voxels": 0}])
def test_undefined_scores_are_refused(settings):
    with pytest.raises(UsageError, match=r"loss\.(smooth|min_voxels)"):
        require_settings(**settings)


def _on_this_rank():
    """Rank 0 has images 0 and 1, rank 1 the last, which has no component; gradients as DDP averages them."""
    logits, target = sample((9, 8))
    mine = slice(0, 2) if ranks.rank() == 0 else slice(2, 3)
    part = Target(label=target.label[mine], cells=target.cells[mine], num_instances=target.num_instances)
    x = logits[mine].clone().requires_grad_()
    loss = blob_dice_loss(x, part)
    loss.backward()
    return {"loss": loss.item(), "gradient": x.grad / ranks.world_size()}


def test_two_ranks_one_of_them_without_a_component_give_the_gradient_of_one_process():
    told = on_ranks(_on_this_rank)
    logits, target = sample((9, 8))
    logits.requires_grad_()
    whole = blob_dice_loss(logits, target)
    whole.backward()
    assert [each["loss"] for each in told] == pytest.approx([whole.item()] * 2, rel=1e-9)
    torch.testing.assert_close(torch.cat([each["gradient"] for each in told]), logits.grad, rtol=1e-9, atol=1e-12)


def test_target_of_numbers_classes_apart():
    target = target_of([[[1, 2, 0, 1]]])
    assert target.instances.flatten().tolist() == [1, 3, 0, 2]
