import pytest
import torch
from torch import nn

from segkit.errors import UsageError
from segkit.inference.predictor import Predictor


class Probe(nn.Module):
    """A 1x1 convolution with dropout that notes how it was called."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(1, 2, 1)
        self.frozen = nn.Dropout(0.5).eval()
        self.dropout = nn.Dropout(0.5)
        self.seen = []

    def forward(self, x):
        y = self.dropout(self.convolution(x))
        self.seen.append((self.training, y.dtype, torch.is_grad_enabled()))
        return y


def predictor(network, **options):
    return Predictor(network, patch_size=(8, 8), num_classes=2, **options)


def test_eval_inside_and_every_module_as_it_was_after():
    network = Probe()
    image = torch.randn(1, 12, 9)
    found = predictor(network)(image)
    assert all(not training and not grad for training, _, grad in network.seen)
    assert network.training
    assert network.dropout.training
    assert not network.frozen.training
    torch.testing.assert_close(found, network.convolution(image).detach(), rtol=0, atol=1e-6)


def test_mirrored_is_the_same_network_with_other_axes():
    """It looks one voxel up: its mirror image looks one voxel down, and their mean both ways."""
    network = nn.Conv2d(1, 2, (3, 1), padding=(1, 0), bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([0.0, 0.0, 1.0]).reshape(1, 1, 3, 1))
    image = torch.randn(1, 8, 8)
    plain = predictor(network)
    flipped = plain.mirrored([0])
    ahead, behind = (torch.nn.functional.pad(image, pad)[0] for pad in ((0, 0, 0, 1), (0, 0, 1, 0)))
    torch.testing.assert_close(plain(image)[1], ahead[1:])
    torch.testing.assert_close(flipped(image)[1], (ahead[1:] + behind[:-1]) / 2)
    assert (plain.mirror_axes, flipped.mirror_axes) == ((), (0,))


def test_modes_come_back_after_an_error():
    class Broken(Probe):
        def forward(self, x):
            raise RuntimeError("out of order")

    network = Broken()
    with pytest.raises(RuntimeError, match="out of order"):
        predictor(network)(torch.zeros(1, 8, 8))
    assert network.training
    assert network.dropout.training


def test_the_result_is_normal_memory():
    found = predictor(Probe())(torch.zeros(1, 12, 9))
    assert not found.is_inference()
    (found * torch.ones(1, requires_grad=True)).sum().backward()


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", torch.bfloat16), ("32-true", torch.float32)])
def test_precision(precision, dtype):
    network = Probe()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = predictor(network, precision=precision)(torch.ones(1, 8, 8))
    assert found.dtype == torch.float32
    assert {seen for _, seen, _ in network.seen} == {dtype}


def test_unknown_precision():
    with pytest.raises(UsageError, match="8-bit"):
        predictor(Probe(), precision="8-bit")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_stream_is_the_call_plane_by_plane(precision):
    network, image = Probe(), torch.randn(1, 29, 9, generator=torch.Generator().manual_seed(0))
    predict = predictor(network, precision=precision, mirror_axes=(0, 1), tile_batch=2)
    blocks = []
    for block in predict.stream(image):
        # What the caller does in between is none of the network's business.
        assert not torch.is_inference_mode_enabled()
        assert not torch.is_autocast_enabled("cpu")
        blocks.append(block.clone())
    assert torch.equal(torch.cat(blocks, dim=1), predict(image))
    assert network.training
    assert not network.frozen.training
    assert all(not training and not grad for training, _, grad in network.seen)


def test_a_stream_that_is_given_up_leaves_the_network_as_it_was():
    network = Probe()
    stream = predictor(network).stream(torch.zeros(1, 40, 9))
    next(stream)
    stream.close()
    assert network.training


def test_what_a_device_has_no_room_for_is_not_tried_again_with_the_next_image(caplog):
    class Narrow(Probe):
        def forward(self, x):
            if len(x) > 2:
                raise RuntimeError("CUDA out of memory")
            return super().forward(x)

    predict = predictor(Narrow(), tile_batch=8)
    predict(torch.zeros(1, 40, 9))
    assert predict.tile_batch == 2
    assert "8 tiles: 4" in caplog.text
    assert "4 tiles: 2" in caplog.text
