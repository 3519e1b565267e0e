"""Storages are counted once each, for as long as they live."""

import torch
from torch import nn

from segkit.planning.live_bytes import CUDA_BLOCK, LiveBytes, no_memory


def test_storages_are_counted_while_they_live():
    live = LiveBytes()
    with no_memory(), live:
        one = torch.empty(10)
        assert live.now == 40
        view = one[2:]
        assert live.now == 40  # the same storage
        two = one * 2
        assert live.now == 80
        del one
        assert live.now == 80  # the view holds it
        del view
        assert live.now == 40
        two.add_(1)
        assert (live.now, live.peak) == (40, 80)
        live.begin()
        assert live.peak == 40
        del two
    assert live.now == 0


def test_blocks_are_rounded_up():
    live = LiveBytes(block=CUDA_BLOCK)
    with no_memory(), live:
        kept = [torch.empty(1), torch.empty(129)]
        assert live.now == 512 + 1024
        kept.clear()


def test_a_backward_pass_keeps_what_it_needs():
    """Of x -> exp -> exp -> sum each output of exp is kept: its own derivative."""
    live = LiveBytes()
    with no_memory(), live:
        weight = nn.Parameter(torch.empty(1000))
        total = weight.exp().exp().sum()
        assert live.now == 3 * 4000 + 4
        total.backward()
        assert live.now == 2 * 4000 + 4  # weight, gradient, total
        assert live.peak >= 4 * 4000 + 4


def test_nothing_is_allocated():
    """A petabyte, of which there is none."""
    live = LiveBytes()
    with no_memory(), live:
        kept = torch.empty(2**48)
        assert (kept + 1).shape == (2**48,)
        assert live.peak == 2 * 4 * 2**48


def test_a_convolution_of_one_sample_on_one_thread_takes_its_columns():
    """C k^3 numbers an output voxel, as torch's own kernel lays them out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    live = LiveBytes()
    with no_memory(), live:
        image, weight = torch.empty(1, 2, 8, 8, 8), torch.empty(4, 2, 3, 3, 3)
        before = live.now
        out = torch.conv3d(image, weight, padding=1)
        assert live.now == before + 4 * 4 * 8**3
        assert live.peak == live.now + 4 * (2 * 27) * 8**3
        del out
    torch.set_num_threads(threads)
