"""Soft counts: against the sums in float64, with the gradient that autograd gives these, in every layout."""

import pytest
import torch
from torch.nn import functional as F

from segkit.losses import soft_counts as module
from segkit.losses.soft_counts import soft_counts

SHAPES = [(7, 5), (6, 5, 3)]
LAYOUTS = ["contiguous", "channels last", "strided"]


def sample(shape, *, num_classes=3, batch=3, dtype=torch.float64, layout="contiguous"):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(batch, num_classes, *shape, generator=generator, dtype=dtype)
    label = torch.randint(-1, num_classes, (batch, 1, *shape), generator=generator)
    if layout == "channels last":
        logits = logits.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "strided":
        logits = logits.repeat_interleave(2, dim=-1)[..., ::2]
        label = label.repeat_interleave(2, dim=2)[:, :, ::2]
    return logits, label


def formula(logits, label, activation):
    """The four sums, operation by operation."""
    known = (label >= 0).to(logits.dtype)
    truth = F.one_hot(label[:, 0].clamp(min=0), logits.shape[1]).movedim(-1, 1).to(logits.dtype) * known
    if activation == "softmax":
        p, surprise = logits.softmax(1), -logits.log_softmax(1) * truth
    else:
        p = logits.sigmoid()
        surprise = -(truth * F.logsigmoid(logits) + (1 - truth) * F.logsigmoid(-logits)) * known
    return [value.flatten(2).sum(2) for value in (p * truth, p * known, truth, surprise)]


def value_and_gradient(counts, logits):
    """The counts, and the gradient of a weighted sum of them in which no two weights are equal."""
    weights = torch.arange(1.0, 4 * counts[0].numel() + 1, dtype=torch.float64).view(4, *counts[0].shape)
    total = sum((weight * count).sum() for weight, count in zip(weights, counts, strict=True))
    return [count.detach() for count in counts], torch.autograd.grad(total, logits)[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_classes", [1, 2, 5])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("piece", [1, 40, 2**19])
def test_value_and_gradient_equal_the_formula(shape, num_classes, activation, layout, piece, monkeypatch):
    # One plane at a time; some planes or some samples; everything at once.
    monkeypatch.setattr(module, "PIECE", piece)
    logits, label = sample(shape, num_classes=num_classes, layout=layout)
    ours, plain = logits.detach().requires_grad_(), logits.detach().requires_grad_()
    found = value_and_gradient(soft_counts(ours, label.to(torch.int8), activation=activation), ours)
    expected = value_and_gradient(formula(plain, label, activation), plain)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_single_precision_is_that_of_the_sums(activation):
    logits, label = sample((24, 24, 24), dtype=torch.float32)
    expected = formula(logits.double(), label, activation)
    for count, exact in zip(soft_counts(logits, label, activation=activation), expected, strict=True):
        assert count.dtype == torch.float32
        torch.testing.assert_close(count.double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_half_precision_logits_are_counted_in_single_precision(dtype, layout):
    logits, label = sample((6, 5, 3), layout=layout)
    half = logits.to(dtype).requires_grad_()
    single = half.detach().float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        counts, gradient = value_and_gradient(soft_counts(half, label), half)
    expected, expected_gradient = value_and_gradient(soft_counts(single, label), single)
    torch.testing.assert_close(counts, expected)
    assert gradient.dtype == dtype
    assert gradient.stride() == torch.empty_like(half).stride()
    torch.testing.assert_close(gradient, expected_gradient.to(dtype), rtol=0, atol=0)


def test_the_graph_can_be_walked_twice():
    logits, label = sample((6, 5, 3))
    logits.requires_grad_()
    total = soft_counts(logits, label).surprise.sum()
    first, second = (torch.autograd.grad(total, logits, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_nothing_as_large_as_the_logits_is_kept(activation):
    kept = []
    logits, label = sample((6, 5, 3))
    logits.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        soft_counts(logits, label, activation=activation)
    assert {tensor.data_ptr() for tensor in kept} == {logits.data_ptr(), label.data_ptr()}


def test_a_label_beyond_the_classes_is_no_ignored_voxel():
    logits, label = sample((6, 5, 3))
    label[0, 0, 0, 0, 0] = 3
    with pytest.raises(RuntimeError, match="none of the 3 classes"):
        soft_counts(logits, label)


def test_the_number_of_threads_does_not_matter(monkeypatch):
    monkeypatch.setattr(module, "PIECE", 40)
    logits, label = sample((6, 5, 3), dtype=torch.float32)
    logits.requires_grad_()
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(value_and_gradient(soft_counts(logits, label), logits))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)
    torch.testing.assert_close(found[2], found[0], rtol=0, atol=0)
