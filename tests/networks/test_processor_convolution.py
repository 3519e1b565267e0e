"""Convolutions of shallow maps: the gradient does not depend on what lay in memory, and is that of float32.

Of single samples: what torch computes, whatever the settings, and not by its own kernel where oneDNN is taken.
"""

import pickle

import pytest
import torch
from torch import nn

from segkit.networks import processor_convolution
from segkit.networks.processor_convolution import ProcessorConv3d, mend_processor_convolutions, uses_columns


def fill_freed_memory():
    """What is allocated next begins as NaN, unless it is written."""
    sizes = [4**power for power in range(3, 11)]
    blocks = [torch.full((size,), torch.nan, dtype=dtype) for size in sizes for dtype in (torch.float, torch.bfloat16)]
    del blocks


@pytest.mark.parametrize(("size", "kernel"), [((2, 2, 2), 3), ((2, 8, 8), 3), ((3, 8, 8), 5), ((4, 8, 8), 5)])
@pytest.mark.parametrize("autocast", [True, False])
def test_the_gradient_of_shallow_maps_is_that_of_single_precision(size, kernel, autocast):
    def convolution():
        return mend_processor_convolutions(nn.Conv3d(16, 16, kernel, padding=kernel // 2))

    layer = convolution()
    image = torch.randn(2, 16, *size).bfloat16().float()
    with torch.no_grad():
        layer.weight.copy_(layer.weight.bfloat16())
        layer.bias.copy_(layer.bias.bfloat16())
    layer(image).square().sum().backward()
    expected = layer.weight.grad.clone()
    for _ in range(5):
        layer.zero_grad()
        half = layer if autocast else convolution().bfloat16()
        half.load_state_dict(layer.state_dict())
        fill_freed_memory()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            output = half(image if autocast else image.bfloat16())
        assert output.dtype == torch.bfloat16
        fill_freed_memory()
        output.float().square().sum().backward()
        assert half.weight.grad.isfinite().all()
        assert (half.weight.grad.float() - expected).abs().max() < 0.02 * expected.abs().max()


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 8, 8), (8, 2, 2)])
def test_other_maps_are_convolved_as_ever(size):
    plain = nn.Conv3d(4, 4, 3, padding=1)
    guarded = mend_processor_convolutions(pickle.loads(pickle.dumps(plain)))
    assert type(guarded) is ProcessorConv3d
    assert type(pickle.loads(pickle.dumps(guarded))) is ProcessorConv3d
    image = torch.randn(2, 4, *size)
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            assert torch.equal(guarded(image), plain(image))


def test_weights_keep_their_names_and_users_their_classes():
    class Theirs(nn.Conv3d):
        pass

    network = nn.Sequential(nn.Conv3d(1, 2, 3), Theirs(2, 2, 3), nn.Conv2d(2, 2, 3))
    before = list(network.state_dict())
    assert mend_processor_convolutions(network) is network
    assert [type(module) for module in network] == [ProcessorConv3d, Theirs, nn.Conv2d]
    assert list(network.state_dict()) == before


SETTINGS = [
    {},
    {"stride": 2},
    {"stride": (1, 2, 2), "dilation": (1, 2, 1)},
    {"bias": False},
    {"padding": "same"},
    {"padding_mode": "circular"},
    {"groups": 2},
    {"kernel_size": 1, "padding": 0},
    {"kernel_size": (1, 3, 3), "padding": (0, 1, 1)},
    {"kernel_size": (3, 2, 1), "padding": (1, 0, 0)},
]


@pytest.fixture
def by_onednn(monkeypatch):
    """Calls of oneDNN's operator so far."""
    calls = []

    def counted(*arguments):
        calls.append(tuple(arguments[0].shape))
        return operator(*arguments)

    operator = processor_convolution.POINTWISE
    if operator is None:
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(processor_convolution, "POINTWISE", counted)
    return calls


def pair(**settings):
    """A convolution in double precision and ours with its weights."""
    exact = nn.Conv3d(4, 6, **{"kernel_size": 3, "padding": 1, **settings}).double()
    ours = mend_processor_convolutions(pickle.loads(pickle.dumps(exact)).float())
    return exact, ours


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("size", [(12, 10, 14), (9, 9, 9), (3, 4, 5)])
@pytest.mark.parametrize("format_", [torch.contiguous_format, torch.channels_last_3d])
def test_a_single_sample_is_convolved_as_the_formula_says(settings, size, format_):
    exact, ours = pair(**settings)
    image = torch.randn(1, 4, *size)
    with torch.no_grad():
        found = ours(image.contiguous(memory_format=format_))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact(image.double()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_small_single_samples_go_to_onednn(by_onednn, mode):
    _, ours = pair()
    if not uses_columns(torch.randn(1, 4, 12, 12, 12), ours.weight, ((1,) * 3, (1,) * 3, (1,) * 3, False, (0,) * 3, 1)):
        pytest.skip("torch takes another kernel on this processor")
    with mode():
        ours(torch.randn(1, 4, 12, 12, 12))
    assert by_onednn == [(1, 4, 12, 12, 12)]


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        pytest.param((2, 4, 12, 12, 12), {}, id="two samples"),
        pytest.param((1, 4, 80, 80, 8), {}, id="large: torch takes oneDNN itself"),
        pytest.param((1, 4, 5, 5, 5), {}, id="few voxels"),
        pytest.param((4, 12, 12, 12), {}, id="no batch"),
        pytest.param((1, 4, 12, 12, 12), {"groups": 2}, id="groups"),
        pytest.param((1, 4, 12, 12, 12), {"padding": "same"}, id="padding by name"),
        pytest.param((1, 4, 12, 12, 12), {"padding_mode": "replicate"}, id="padding by voxels"),
        pytest.param((1, 4, 12, 12, 12), {"kernel_size": 1, "padding": 0}, id="no neighbours"),
    ],
)
def test_other_images_are_left_to_torch(by_onednn, shape, settings):
    _, ours = pair(**settings)
    with torch.no_grad():
        ours(torch.randn(shape))
    assert by_onednn == []


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # torch's, of setting flags back
def test_with_a_gradient_in_half_precision_and_without_onednn_torch_decides(by_onednn):
    _, ours = pair()
    image = torch.randn(1, 4, 12, 12, 12)
    ours(image).sum().backward()
    assert ours.weight.grad is not None
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ours(image)
        pickle.loads(pickle.dumps(ours)).double()(image.double())
        with torch.backends.mkldnn.flags(enabled=False):
            ours(image)
    assert by_onednn == []


def test_a_torch_without_the_operator_computes_the_same(monkeypatch):
    _, ours = pair()
    image = torch.randn(1, 4, 12, 12, 12)
    with torch.no_grad():
        fast = ours(image)
        monkeypatch.setattr(processor_convolution, "POINTWISE", None)
        torch.testing.assert_close(fast, ours(image), rtol=1e-5, atol=1e-6)
