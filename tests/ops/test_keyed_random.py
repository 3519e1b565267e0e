import numpy as np
import pytest

from segkit.errors import UsageError
from segkit.ops.keyed_random import generator, torch_seed


def test_same_key_same_numbers():
    first = generator(7, 123, 1).random(100)
    np.testing.assert_array_equal(first, generator(7, 123, 1).random(100))


def test_numbers_are_frozen():
    """A change here changes every sample of every run there is: it belongs under Numerics in the changelog."""
    assert generator(1, 2, 3).integers(1 << 62) == 1690813648320496426
    assert torch_seed(1, 2, 3) == 3381627296640992853


@pytest.mark.parametrize("other", [(8, 123, 1), (7, 124, 1), (7, 123, 2), (123, 7, 1)])
def test_any_part_of_the_key_changes_the_numbers(other: tuple[int, int, int]):
    assert not np.isin(generator(7, 123, 1).random(1000), generator(*other).random(1000)).any()


def test_neighbouring_samples_are_uncorrelated():
    first = np.stack([generator(0, n, 1).random(64) for n in range(2000)])
    correlation = np.corrcoef(first[:-1].ravel(), first[1:].ravel())[0, 1]
    assert abs(correlation) < 4 / np.sqrt(first[1:].size)  # four standard errors
    assert abs(first.mean() - 0.5) < 4 / np.sqrt(12 * first.size)


def test_large_arguments_are_kept_apart():
    assert generator(2**64 - 1, 2**64 - 1, 4).random() != generator(2**64 - 1, 2**64 - 2, 4).random()


@pytest.mark.parametrize("key", [(-1, 0, 0), (0, -1, 0), (0, 0, 1 << 64)])
def test_out_of_range_is_refused(key: tuple[int, int, int]):
    with pytest.raises(UsageError, match="out of range"):
        generator(*key)


def test_torch_seed_fits_into_63_bits():
    seeds = [torch_seed(3, n, 2) for n in range(200)]
    assert len(set(seeds)) == 200
    assert min(seeds) >= 0
    assert (1 << 62) < max(seeds) < (1 << 63)
