"""Whole images beside nnU-Net's own predictor (2.8.1), where it is installed: the same network, the same logits.

nnU-Net adds weighted logits, and the weights, in half precision. Ten times the Gaussian of the middle of a tile is of
the order of 1, that of a corner below 2^-24, the smallest number there is. With n tiles over a voxel, weights that add
up to W, and logits of size L its result may be off by n (2^-10 L + 2^-23 / W): by some thousandths where W is a normal
number, by tenths in the corners of the image, which only the corners of tiles reach. `make test-reference` runs this.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from segkit.inference.predictor import Predictor

predicting = pytest.importorskip("nnunetv2.inference.predict_from_raw_data", reason="nnU-Net is not installed")

CASES = [
    ((23, 17, 30), (16, 8, 16), ()),
    ((40, 33, 18), (16, 16, 16), (0, 2)),
    ((9, 33, 18), (16, 16, 16), ()),  # smaller than the tile along one axis
    ((7, 5, 6), (16, 16, 16), (1,)),  # along all of them
    ((110, 70), (64, 32), ()),
    ((50, 70), (64, 32), (0, 1)),
]
NORMAL = 2.0**-14
"""Below this numbers of half precision lose digits."""


@pytest.mark.parametrize(("size", "patch", "mirror"), CASES)
def test_logits_are_nnunets(size, patch, mirror):
    axes = len(size)
    torch.manual_seed(0)
    convolution = {2: nn.Conv2d, 3: nn.Conv3d}[axes]
    network = nn.Sequential(convolution(2, 6, 3, padding=1), nn.LeakyReLU(), convolution(6, 3, 3, padding=1)).eval()
    image = torch.randn((2, *size), generator=torch.Generator().manual_seed(1))

    theirs = predicting.nnUNetPredictor(
        tile_step_size=0.5, use_gaussian=True, use_mirroring=bool(mirror), device=torch.device("cpu"), allow_tqdm=False
    )
    theirs.network, theirs.allowed_mirroring_axes = network, mirror or None
    theirs.configuration_manager = SimpleNamespace(patch_size=list(patch))
    theirs.label_manager = SimpleNamespace(num_segmentation_heads=3)
    # Flat images have an axis of one slice there.
    deep = image if axes == 3 else image[:, None]
    expected = theirs.predict_sliding_window_return_logits(deep).float().reshape(3, *size)
    tiles, weight = coverage(theirs, deep, patch)

    found = Predictor(network, patch_size=patch, num_classes=3, tile_batch=2, mirror_axes=mirror)(image)
    apart = (found - expected).abs().amax(dim=0)
    bound = tiles * (2.0**-10 * float(found.abs().max()) + 2.0**-23 / weight)
    assert bool((apart <= bound.reshape(size)).all())
    assert float(apart[weight.reshape(size) >= NORMAL].max()) < 2e-3
    assert (found.argmax(0) == expected.argmax(0)).float().mean() > 0.99


def coverage(predictor, image, patch):
    """Tiles over each voxel, and the sum of their weights, as nnU-Net lays them."""
    data, inside = predicting.pad_nd_image(image, patch, "constant", {"value": 0}, True, None)
    gaussian = predicting.compute_gaussian(tuple(patch), value_scaling_factor=10, device=torch.device("cpu")).double()
    tiles, weight = torch.zeros(2, *data.shape[1:], dtype=torch.float64)
    for place in predictor._internal_get_sliding_window_slicers(data.shape[1:]):
        tiles[place[1:]] += 1
        weight[place[1:]] += gaussian
    return tiles[inside[1:]], weight[inside[1:]]
