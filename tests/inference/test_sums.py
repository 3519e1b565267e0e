"""The same numbers, to the last bit, whatever is held at once."""

import numpy as np
import pytest
import torch

from segkit.inference.sliding_window import Passes, count_tiles, sliding_window, stream_planes, tile_starts
from segkit.inference.sums import Sums

CASES = [
    # image, tile, step: several rows; one row; smaller than the tile along each axis; three tiles over one voxel
    ((37, 23), (8, 16), 0.5),
    ((9, 40), (9, 16), 0.5),
    ((5, 40), (8, 16), 0.5),
    ((110, 3), (64, 8), 0.5),
    ((23, 17, 11), (8, 4, 8), 0.5),
    ((23, 3, 5), (8, 4, 8), 0.3),
    ((3, 17, 5), (8, 4, 8), 0.5),
    ((16, 12, 9), (8, 12, 9), 1.0),
]


def network(dimensions, classes=5):
    torch.manual_seed(0)
    conv = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[dimensions]
    return conv(2, classes, 3, padding=1).eval().requires_grad_(False)


def image_of(size):
    return torch.randn((2, *size), generator=torch.Generator().manual_seed(1))


def streamed(net, image, patch, step, *, classes=5, tile_batch=2, **options):
    passes = Passes(net, num_classes=classes, tile_batch=tile_batch, device="cpu")
    blocks = stream_planes(passes, image, patch_size=patch, step=step, **options)
    # Copies: each block's memory is used again.
    return [block.clone() for block in blocks]


@pytest.mark.parametrize(("size", "patch", "step"), CASES)
@pytest.mark.parametrize("tile_batch", [1, 4])
def test_planes_are_those_of_the_whole_image(size, patch, step, tile_batch):
    image, net = image_of(size), network(len(size))
    whole = sliding_window(net, image, patch_size=patch, num_classes=5, step=step, tile_batch=tile_batch)
    blocks = streamed(net, image, patch, step, tile_batch=tile_batch)
    assert torch.equal(torch.cat(blocks, dim=1), whole)
    rows = len(tile_starts(max(size[0], patch[0]), patch[0], step))
    assert len(blocks) >= rows
    assert max(block.shape[1] for block in blocks) <= patch[0]


@pytest.mark.parametrize(("size", "patch", "step"), CASES)
@pytest.mark.parametrize("window", [1, 5000, 1 << 20])
def test_a_file_holds_the_same_numbers(size, patch, step, window, tmp_path):
    image, net = image_of(size), network(len(size))
    whole = sliding_window(net, image, patch_size=patch, num_classes=5, step=step, tile_batch=2)
    blocks = streamed(net, image, patch, step, scratch=tmp_path, window=window)
    assert torch.equal(torch.cat(blocks, dim=1), whole)
    plane = 4 * 5 * np.prod([max(n, p) for n, p in zip(size[1:], patch[1:], strict=True)])
    assert max(block.shape[1] for block in blocks) <= max(1, window // plane)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [*range(1, 70), 1000, 40_001])
def test_weighting_does_not_depend_on_how_a_tile_is_cut(length):
    """What bit-identity rests on: a ring adds a tile in two parts where its end is passed."""
    generator = torch.Generator().manual_seed(length)
    a, b, c = (torch.randn(length, generator=generator) for _ in range(3))
    whole = a.clone().addcmul_(b, c)
    parts = a.clone()
    cut = length // 3
    parts[:cut].addcmul_(b[:cut], c[:cut])
    parts[cut:].addcmul_(b[cut:], c[cut:])
    assert torch.equal(whole, parts)


def test_memory_does_not_grow_with_the_planes():
    held = [Sums(3, (planes, 6, 5), places=8).held.numel() for planes in (8, 80, 800)]
    assert held == [3 * 8 * 6 * 5] * 3


def test_places_are_used_again_empty():
    sums = Sums(1, (7, 2), places=3)
    line = (0, torch.ones(2))
    for start, value in ((0, 1.0), (2, 10.0), (4, 100.0)):
        sums.add([(start, torch.ones(3)), line], torch.full((1, 3, 2), value))
        stop = min(start + 2, 7) if start < 4 else 7
        planes = torch.cat([block.clone() for block in sums.take(start, stop)], dim=1)[0, :, 0]
        assert planes.tolist() == {0: [1, 1], 2: [11, 10], 4: [110, 100, 100]}[start]


@pytest.mark.parametrize(("size", "patch", "step"), CASES)
def test_tiles_are_counted_before_they_are_made(size, patch, step):
    calls = []

    def counting(batch):
        calls.append(len(batch))
        return batch

    sliding_window(counting, image_of(size), patch_size=patch, num_classes=2, step=step, tile_batch=3)
    assert sum(calls) == count_tiles(size, patch, step)
