"""Whole images beside nnU-Net's own predictor (2.8.1), where it is installed: the same network, the same logits.

nnU-Net sums in half precision, so that a logit of size 1 may be off by some 2^-11 for each of the tiles over a voxel.
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
    expected = theirs.predict_sliding_window_return_logits(image if axes == 3 else image[:, None]).float()
    expected = expected if axes == 3 else expected[:, 0]

    found = Predictor(network, patch_size=patch, num_classes=3, tile_batch=2, mirror_axes=mirror)(image)
    torch.testing.assert_close(found, expected, rtol=0, atol=8e-3)
    assert (found.argmax(0) == expected.argmax(0)).float().mean() > 0.99
