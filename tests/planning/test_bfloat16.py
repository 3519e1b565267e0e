"""In which of two number formats a processor is faster is measured, and nothing else is touched by that."""

import pytest
import torch

from segkit.planning import bfloat16
from segkit.planning.bfloat16 import bf16_speedup


@pytest.fixture(autouse=True)
def _nothing_measured_before():
    bf16_speedup.cache_clear()
    yield
    bf16_speedup.cache_clear()


def test_threads_and_random_numbers_are_as_before():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert 0 < bf16_speedup() < 100
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_it_is_measured_without_gradients_being_wanted_around_it():
    with torch.no_grad():
        assert bf16_speedup() > 0


@pytest.mark.parametrize(("slow", "expected"), [(torch.float32, 3.0), (torch.bfloat16, 1 / 3)])
def test_the_ratio_is_of_the_fastest_passes_whatever_else_the_machine_did(monkeypatch, slow, expected):
    """A pass that another process held up tenfold does not move it."""
    disturbed = iter([10, 1, 1, 10, 1, 1, 10, 10])
    monkeypatch.setattr(bfloat16, "_seconds", lambda image, _: (3.0 if image.dtype == slow else 1.0) * next(disturbed))
    assert bf16_speedup() == pytest.approx(expected)


def test_each_is_measured_as_plans_compute_it(monkeypatch):
    seen = []
    monkeypatch.setattr(bfloat16, "_seconds", lambda image, weight: seen.append((image, weight)) or 1.0)
    bf16_speedup()
    for image, weight in seen:
        last = image.is_contiguous(memory_format=torch.channels_last_3d)
        assert last == weight.is_contiguous(memory_format=torch.channels_last_3d) == (image.dtype == torch.bfloat16)
        assert len(image) > 1
    assert {image.dtype for image, _ in seen} == {torch.float32, torch.bfloat16}
