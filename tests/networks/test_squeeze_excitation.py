"""Squeeze-and-excitation: the weights by hand, and what cannot change them."""

import pytest
import torch

from segkit.networks.squeeze_excitation import SqueezeExcitation


def test_weights_by_hand():
    layer = SqueezeExcitation(2, reduction=2)
    with torch.no_grad():
        layer.squeeze.weight.copy_(torch.tensor([[1.0, 2.0]]))
        layer.squeeze.bias.fill_(0.5)
        layer.excite.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        layer.excite.bias.copy_(torch.tensor([0.0, 3.0]))
    # Means 2 and -0.5: the hidden unit is 2 - 1 + 0.5 = 1.5, the weights are sigmoid(1.5) and sigmoid(1.5).
    image = torch.tensor([[[[1.0, 3.0]], [[0.0, -1.0]]]])
    torch.testing.assert_close(layer.weights(image), torch.full((1, 2), 1 / (1 + 2.718281828**-1.5)))
    # A hidden unit below zero is cut off: the bias alone is left.
    torch.testing.assert_close(layer.weights(-image)[0], torch.tensor([0.5, 1 / (1 + 2.718281828**-3)]))
    torch.testing.assert_close(layer(image), image * layer.weights(image)[:, :, None, None])


@pytest.mark.parametrize("size", [(4, 6), (2, 3, 4)])
def test_weights_do_not_depend_on_where_things_are(size):
    torch.manual_seed(0)
    layer, image = SqueezeExcitation(32), torch.randn(2, 32, *size)
    torch.testing.assert_close(layer.weights(image.flip(2)), layer.weights(image))
    assert layer.squeeze.out_features == 2
    assert SqueezeExcitation(4).squeeze.out_features == 1
    assert torch.all((layer.weights(image) > 0) & (layer.weights(image) < 1))
