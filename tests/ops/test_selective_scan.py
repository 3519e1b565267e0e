"""The selective scan against the recurrence, step by step, as it is written in the file's header."""

import math
import sys
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from segkit.ops import selective_scan as module
from segkit.ops.selective_scan import CHUNK, ELEMENTS, cuda_kernel, selective_scan

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def arguments(batch, channels, states, tokens, *, dtype=torch.float32, device="cpu"):
    """Steps dt of 0.01 to 0.3, decays of 0.2 to 4."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    given = (
        normal(batch, channels, tokens),
        0.5 * normal(batch, channels, tokens),
        -torch.exp(0.5 * normal(channels, states)),
        normal(batch, states, tokens),
        normal(batch, states, tokens),
        normal(channels),
        normal(batch, channels, tokens),
        0.5 * normal(channels) - 3,
    )
    return tuple(each.to(device, dtype).requires_grad_() for each in given)


def step_by_step(u, delta, A, B, C, D, z, delta_bias):
    step = F.softplus(delta + delta_bias[:, None])
    h = u.new_zeros(u.shape[0], *A.shape)
    outputs = []
    for t in range(u.shape[2]):
        h = torch.exp(step[:, :, t, None] * A) * h + (step * u)[:, :, t, None] * B[:, None, :, t]
        outputs.append((h * C[:, None, :, t]).sum(-1))
    return (torch.stack(outputs, 2) + D[:, None] * u) * F.silu(z)


def weighted(out):
    """A loss in which each number of the output has a weight of its own."""
    return (out * torch.cos(torch.arange(out.numel(), device=out.device) * 0.7391).view(out.shape)).sum()


def distance(found, expected):
    return float((found.detach().double() - expected.detach()).norm() / expected.detach().norm())


@pytest.mark.parametrize("tokens", [1, 31, 32, 33, 1024, 4096])
def test_it_is_the_recurrence_and_so_are_all_its_gradients(tokens):
    exact = arguments(2, 5, 3, tokens, dtype=torch.float64)
    given = arguments(2, 5, 3, tokens)
    expected, found = step_by_step(*exact), selective_scan(*given)
    assert found.dtype == torch.float32
    assert float((found.detach() - expected.detach()).abs().max() / expected.detach().abs().max()) < 2e-6
    gradients = torch.autograd.grad(weighted(expected), exact, materialize_grads=True)
    ours = torch.autograd.grad(weighted(found), given)
    for name, mine, theirs in zip(NAMES, ours, gradients, strict=True):
        if name == "A" and tokens == 1:
            assert float(mine.abs().max()) == 0  # the first token meets a state of zero
        else:
            assert distance(mine, theirs) < 1e-5, name


def test_an_impulse_is_halved_at_every_token():
    # softplus(0) = log 2, so exp(dt A) = 1/2 with A = -1; B = 1 / log 2 lets u enter as it is.
    u, one = torch.zeros(1, 1, 70), torch.ones(1, 1, 70)
    u[..., 3] = 1
    z = 2 * one
    out = selective_scan(u, 0 * one, -torch.ones(1, 1), one / math.log(2), one, torch.tensor([5.0]), z, torch.zeros(1))
    expected = torch.tensor([0.0] * 3 + [6.0] + [0.5**t for t in range(1, 67)]) * 2 / (1 + math.exp(-2))
    torch.testing.assert_close(out[0, 0], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("numbers", [1, 60, 10**6], ids=["one chunk at a time", "several", "all at once"])
def test_gradients_are_those_of_finite_differences_however_it_is_cut(monkeypatch, numbers):
    monkeypatch.setattr(module, "CHUNK", 3)
    monkeypatch.setattr(module, "ELEMENTS", {"cpu": numbers})
    given = arguments(2, 2, 2, 10, dtype=torch.float64)
    torch.testing.assert_close(selective_scan(*given), step_by_step(*given))
    assert torch.autograd.gradcheck(selective_scan, given)


def test_tokens_do_not_see_what_comes_after_them():
    given = [each.detach() for each in arguments(1, 3, 2, 100)]
    before = selective_scan(*given)
    given[0][..., 50] += 1
    after = selective_scan(*given)
    assert torch.equal(before[..., :50], after[..., :50])
    assert (before[..., 50:] != after[..., 50:]).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_only_at_the_end(dtype):
    half = [each.detach().to(dtype) for each in arguments(1, 4, 3, 200)]
    wide = selective_scan(*(each.float() for each in half))
    assert torch.equal(selective_scan(*half), wide.to(dtype))


def test_autocast_changes_nothing():
    given = arguments(1, 8, 8, 100)
    plain = selective_scan(*given)
    expected = torch.autograd.grad(weighted(plain), given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = selective_scan(*given)
        found = torch.autograd.grad(weighted(out), given)
    assert torch.equal(out, plain)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_long_sequences_of_strong_decay_stay_finite():
    given = [each.detach() for each in arguments(1, 2, 2, 2000)]
    given[2] = torch.full((2, 2), -1e4)
    given = [each.requires_grad_() for each in given]
    out = selective_scan(*given)
    assert out.isfinite().all()
    assert all(each.isfinite().all() for each in torch.autograd.grad(out.sum(), given))


@pytest.mark.parametrize("tokens", [320, 640])
def test_inputs_and_states_at_borders_are_all_that_is_kept(tokens):
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: (kept.append(each.numel()), each)[1], lambda each: each):
        selective_scan(*arguments(2, 5, 3, tokens))
    of_tokens = (3 * 5 + 2 * 3) * 2 * tokens
    of_borders = tokens // CHUNK * 2 * 3 * 5
    assert sum(kept) == of_tokens + of_borders + 5 * 3 + 5 + 5


@pytest.mark.parametrize("tokens", [1, 31, 32, 33, 1000, 4097])
def test_blocks_cover_all_tokens_once_and_stay_small(tokens):
    chunks = module._Chunks(tokens, numbers_a_token=1024, device="cpu")
    blocks = list(chunks.blocks())
    assert blocks[0][1].start == 0
    assert blocks[-1][1].stop == tokens
    assert all(a[1].stop == b[1].start and a[0].stop == b[0].start for a, b in pairwise(blocks))
    assert chunks.length <= CHUNK
    assert chunks.side_by_side * chunks.length * 1024 <= ELEMENTS["cpu"]


def test_it_keeps_torchs_rules_for_operators():
    # Schema, shapes and strides without memory, autograd, tracing: what a compiler relies on.
    torch.library.opcheck(torch.ops.segkit.selective_scan.default, arguments(1, 3, 2, 40))


def package(folder, text):
    ops = folder / "mamba_ssm" / "ops"
    ops.mkdir(parents=True)
    (folder / "mamba_ssm" / "__init__.py").touch()
    (ops / "__init__.py").touch()
    (ops / "selective_scan_interface.py").write_text(text)


@pytest.fixture
def forget():
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "mamba_ssm"]:
        del sys.modules[name]


def test_a_kernel_is_never_imported_for_a_processor(monkeypatch, tmp_path, forget):
    package(tmp_path, "raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    selective_scan(*arguments(1, 2, 2, 5))
    assert cuda_kernel("cpu") is None
    assert "mamba_ssm" not in sys.modules


def test_a_kernel_is_taken_on_cuda_where_there_is_one_unless_it_must_repeat(monkeypatch, tmp_path, forget):
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "mamba_ssm", None)  # not installed
        assert cuda_kernel("cuda") is None
    package(tmp_path, "def selective_scan_fn(): return 'the kernel'")
    monkeypatch.syspath_prepend(tmp_path)
    kernel = cuda_kernel("cuda")
    assert kernel is not None
    assert kernel() == "the kernel"
    torch.use_deterministic_algorithms(True)
    try:
        assert cuda_kernel("cuda") is None
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", ["auto", "own"])
def test_a_gpu_computes_the_same(backend):
    exact, given = arguments(2, 6, 4, 1000, dtype=torch.float64), arguments(2, 6, 4, 1000, device="cuda")
    expected, found = step_by_step(*exact), selective_scan(*given, backend=backend)
    assert distance(found.cpu(), expected) < 2e-6
    gradients = torch.autograd.grad(weighted(expected), exact)
    for mine, theirs in zip(torch.autograd.grad(weighted(found), given), gradients, strict=True):
        assert distance(mine.cpu(), theirs) < 1e-5
