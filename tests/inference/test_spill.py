import os
from pathlib import Path

import pytest
import torch

from segkit.inference.spill import Spilled


def resident():
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return 1024 * int(rows["VmRSS"].split()[0])


def test_what_was_written_comes_back(tmp_path):
    spilled = Spilled((3, 50, 7), tmp_path)
    assert torch.equal(spilled.tensor, torch.zeros(3, 50, 7))
    values = torch.randn(3, 50, 7, generator=torch.Generator().manual_seed(0))
    spilled.tensor.copy_(values)
    spilled.let_go()
    spilled.tensor[1].mul_(2)
    spilled.let_go()
    expected = values.clone()
    expected[1] *= 2
    assert torch.equal(spilled.tensor, expected)


def test_the_file_has_no_name(tmp_path):
    spilled = Spilled((10,), tmp_path)
    assert list(tmp_path.iterdir()) == []
    spilled.tensor += 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to tell what a process holds")
def test_pages_that_were_let_go_are_not_held(tmp_path):
    size = 64 << 20
    spilled = Spilled((size // 4,), tmp_path)
    before = resident()
    spilled.tensor += 1
    assert resident() - before > 0.9 * size
    spilled.let_go()
    assert resident() - before < 0.1 * size
    assert bool((spilled.tensor[:: 1 << 16] == 1).all())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")
def test_a_disk_without_room_is_an_error_at_once(tmp_path):
    with pytest.raises(OSError, match=str(tmp_path)):
        Spilled((1 << 57,), tmp_path)
    with pytest.raises(FileNotFoundError):
        Spilled((1,), tmp_path / "gone")
