import numpy as np
import pytest
from scipy import stats

from segkit.data.likely_pairs import _at_least, likely_pairs


def _scales(people, *, first=1, spread=1.0):
    """Two cases a person, of one scale to within 3 %."""
    rng = np.random.default_rng(0)
    scale = np.exp(spread * rng.normal(size=people))
    return {f"scan_{first + 2 * p + k:03d}": float(scale[p] * (1 + 0.03 * k)) for p in range(people) for k in (0, 1)}


def test_two_sides_of_one_person_are_suspected():
    for first in (1, 2):  # pairs (1, 2), (3, 4) or (2, 3), (4, 5)
        found = likely_pairs(_scales(20, first=first))
        assert found is not None
        assert found.compared == 20
        assert len(found.pairs) == 20
        assert found.pairs[0] == (f"scan_{first:03d}", f"scan_{first + 1:03d}")


def test_people_of_their_own_and_data_on_one_scale_raise_no_suspicion():
    scale = np.exp(np.random.default_rng(1).normal(size=60))
    assert likely_pairs({f"scan_{k:03d}": float(s) for k, s in enumerate(scale)}) is None
    assert likely_pairs(_scales(30, spread=0.001)) is None


def test_names_without_numbers_few_cases_and_no_cases():
    assert likely_pairs({name: 1.0 for name in "abc"}) is None
    assert likely_pairs(_scales(2)) is None
    assert likely_pairs({}) is None


@pytest.mark.parametrize(
    ("successes", "trials", "chance"),
    [(3, 10, 0.2), (1, 1, 0.5), (80, 83, 0.11), (9, 9, 0.3), (4, 9, 0.0), (4, 9, 1.0)],
)
def test_the_chance_of_so_many_is_that_of_the_binomial_test(successes, trials, chance):
    expected = stats.binomtest(successes, trials, chance, alternative="greater").pvalue
    assert _at_least(successes, trials, chance) == pytest.approx(expected, rel=1e-9, abs=0)
