"""Component counts: against the sums in float64, with the gradient that autograd gives these, in every layout."""

import pytest
import torch
from torch.nn import functional as F

from segkit.losses import soft_counts as pieces
from segkit.losses.component_counts import ComponentCounts, RegionSums, component_counts
from segkit.types import Target

SHAPES = [(7, 5), (6, 5, 3)]
LAYOUTS = ["contiguous", "channels last", "strided"]
N = 4


def sample(shape, *, num_classes=3, batch=3, dtype=torch.float64, layout="contiguous"):
    """Ids that cross labels at will: components with background in them, foreground without an id, ignored voxels."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(batch, num_classes, *shape, generator=generator, dtype=dtype)
    label = torch.randint(-1, num_classes, (batch, 1, *shape), generator=generator)
    ids = torch.randint(0, N + 1, (batch, 1, *shape), generator=generator)
    if layout == "channels last":
        logits = logits.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "strided":
        logits = logits.repeat_interleave(2, dim=-1)[..., ::2]
        label, ids = (field.repeat_interleave(2, dim=2)[:, :, ::2] for field in (label, ids))
    return logits, Target(label=label, instances=ids, cells=ids, num_instances=N)


def formula(logits, target, *, of, activation, regions=N + 1):
    """The sums, region by region."""
    label, ids = target.label[:, 0], target.instances[:, 0]
    truth = F.one_hot(label.clamp(min=0), logits.shape[1]).movedim(-1, 1).to(logits.dtype)
    if activation == "softmax":
        p, surprise = logits.softmax(1), -(logits.log_softmax(1) * truth).sum(1)
    else:
        p = logits.sigmoid()
        surprise = -(truth * F.logsigmoid(logits) + (1 - truth) * F.logsigmoid(-logits)).sum(1)
    p_y, p_f = (p * truth)[:, 1:].sum(1), p[:, 1:].sum(1)

    def total(value, voxels):
        return torch.stack([(value * (voxels & (member == k))).flatten(1).sum(1) for k in range(regions)], dim=1)

    inside, outside = label > 0, label == 0
    member = ids * inside if of == "instances" else ids
    one = torch.ones_like(p_f)
    halves = [RegionSums(*(total(value, half) for value in (p_f, surprise, one))) for half in (inside, outside)]
    return ComponentCounts(total(p_y, inside), *halves, total(label.to(p_f.dtype), inside))


def flat(counts):
    return [counts.hit, *counts.inside, *counts.outside, counts.classes]


def value_and_gradient(counts, logits):
    """The sums, and the gradient of a weighted sum of them in which no two weights are equal."""
    counts = flat(counts)
    weights = torch.arange(1.0, len(counts) * counts[0].numel() + 1, dtype=torch.float64)
    weights = weights.view(len(counts), *counts[0].shape) / weights.numel()
    total = sum((weight * count).sum() for weight, count in zip(weights, counts, strict=True))
    return [count.detach() for count in counts], torch.autograd.grad(total, logits)[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("of", ["instances", "cells"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("piece", [40, 2**19])
def test_value_and_gradient_equal_the_formula(shape, num_classes, activation, of, layout, piece, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", piece)
    logits, target = sample(shape, num_classes=num_classes, layout=layout)
    ours, plain = logits.detach().requires_grad_(), logits.detach().requires_grad_()
    found = value_and_gradient(component_counts(ours, target, of=of, activation=activation), ours)
    expected = value_and_gradient(formula(plain, target, of=of, activation=activation), plain)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_without_surprise_all_else_is_the_same(num_classes, activation):
    logits, target = sample((6, 5, 3), num_classes=num_classes)
    found = []
    for surprise in (True, False):
        x = logits.detach().requires_grad_()
        counts = component_counts(x, target, of="cells", surprise=surprise, activation=activation)
        assert counts.outside.surprise.isnan().all() == counts.inside.surprise.isnan().all() == (not surprise)
        zero = torch.zeros_like(counts.hit)
        halves = [half._replace(surprise=zero) for half in (counts.inside, counts.outside)]
        found.append(value_and_gradient(counts._replace(inside=halves[0], outside=halves[1]), x))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


def test_regions_together_are_the_whole():
    logits, target = sample((6, 5, 3))
    counts = component_counts(logits, target, of="cells")
    assert (counts.inside.voxels + counts.outside.voxels).sum() == (target.label >= 0).sum()
    assert counts.classes.sum() == target.label.clamp(min=0).sum()


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_sums_over_a_million_voxels_hold_six_digits(activation):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 2, 100, 100, 100, generator=generator)
    label = torch.zeros(1, 1, 100, 100, 100, dtype=torch.int64)
    label[..., :3] = 1
    target = Target(label=label, instances=label, cells=label, num_instances=1)
    exact = flat(formula(logits.double(), target, of="cells", activation=activation, regions=2))
    for found, expected in zip(
        flat(component_counts(logits, target, of="cells", activation=activation)), exact, strict=True
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_half_precision_logits_are_counted_in_single_precision(dtype, layout):
    logits, target = sample((6, 5, 3), layout=layout)
    half = logits.to(dtype).requires_grad_()
    single = half.detach().float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        counts, gradient = value_and_gradient(component_counts(half, target, of="cells"), half)
    expected, expected_gradient = value_and_gradient(component_counts(single, target, of="cells"), single)
    torch.testing.assert_close(counts, expected)
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient, expected_gradient.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
def test_narrow_ids_give_the_same(dtype):
    logits, target = sample((6, 5, 3))
    narrow = Target(label=target.label.to(dtype), instances=target.instances.to(dtype), num_instances=N)
    for found, expected in zip(
        flat(component_counts(logits, narrow, of="instances")),
        flat(component_counts(logits, target, of="instances")),
        strict=True,
    ):
        assert torch.equal(found, expected)


def test_ids_that_nobody_counted_are_counted():
    logits, target = sample((6, 5))
    by_hand = Target(label=target.label, instances=target.instances)
    assert component_counts(logits, by_hand, of="instances").hit.shape == (3, N + 1)


def test_an_id_beyond_the_count_does_not_enter_the_next_sample():
    logits, target = sample((6, 5))
    target.instances[0, 0, 0, 0] = N + 1
    with pytest.raises(RuntimeError, match=f"beyond the {N}"):
        component_counts(logits, target, of="instances")


def test_a_label_beyond_the_classes_is_no_ignored_voxel():
    logits, target = sample((6, 5))
    target.label[0, 0, 0, 0] = 3
    with pytest.raises(RuntimeError, match="none of the 3 classes"):
        component_counts(logits, target, of="instances")


def test_a_target_without_ids_is_refused():
    logits, target = sample((6, 5))
    with pytest.raises(ValueError, match="no cells"):
        component_counts(logits, Target(label=target.label), of="cells")


def test_nothing_as_large_as_the_logits_is_kept():
    kept = []
    logits, target = sample((6, 5, 3))
    logits.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        component_counts(logits, target, of="cells")
    assert {tensor.data_ptr() for tensor in kept} == {
        tensor.data_ptr() for tensor in (logits, target.label, target.cells)
    }


def test_the_number_of_threads_does_not_matter(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 40)
    logits, target = sample((6, 5, 3), dtype=torch.float32)
    logits.requires_grad_()
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(value_and_gradient(component_counts(logits, target, of="cells"), logits))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


def test_determinism_can_be_asked_for():
    logits, target = sample((6, 5, 3), dtype=torch.float32)
    logits.requires_grad_()
    plain = value_and_gradient(component_counts(logits, target, of="cells"), logits)
    torch.use_deterministic_algorithms(True)
    asked = value_and_gradient(component_counts(logits, target, of="cells"), logits)
    torch.testing.assert_close(asked, plain, rtol=0, atol=0)


@pytest.mark.gpu
def test_a_gpu_counts_the_same_and_to_the_bit_where_determinism_is_asked_for():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    logits, target = sample((40, 40, 40), dtype=torch.float32)
    expected = value_and_gradient(component_counts(logits.requires_grad_(), target, of="cells"), logits)
    there, on_gpu = target.to("cuda"), logits.detach().cuda().requires_grad_()
    torch.use_deterministic_algorithms(True)
    found = [flat(component_counts(on_gpu, there, of="cells")) for _ in range(2)]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    for ours, theirs in zip(found[0], expected[0], strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-6, atol=1e-6)
