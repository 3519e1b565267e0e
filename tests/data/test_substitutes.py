"""Which case stands in for an unreadable one."""

import pytest

from segkit.data.layouts import discover
from segkit.data.sampling import SamplingRule, draw
from segkit.data.store import Store
from segkit.data.substitutes import Placeable, Skipping, default_limit

RULE = SamplingRule(patch_size=(8, 8, 8), source_size=(8, 8, 8), batch_size=3, foreground_oversampling=1.0)


@pytest.fixture
def stored(nnunet_raw, tmp_path, plan):
    return Store(tmp_path / "cache").prepare_all(discover(nnunet_raw(cases=3)).cases, plan())


def test_candidates_are_all_cases_the_own_one_first_and_others_for_other_samples():
    skipping = Skipping(seed=3, rule=RULE, max_skipped=1)
    orders = [tuple(skipping.candidates(n, 2, 9)) for n in range(40)]
    assert orders == [tuple(skipping.candidates(n, 2, 9)) for n in range(40)]
    assert all(order[0] == 2 and sorted(order) == list(range(9)) for order in orders)
    assert len({order[1] for order in orders}) == 8


def test_the_substitutes_patch_is_what_the_sample_would_have_in_that_case(stored):
    skipping = Skipping(seed=3, rule=RULE, max_skipped=1)
    for n in range(6):
        found = skipping.draw_in(stored[2], 2, n)
        assert (found.n, found.case) == (n, 2)
        assert found.start == draw(3, n, (stored[2],), RULE).start


@pytest.mark.parametrize(("cases", "limit"), [(1, 1), (19, 1), (40, 2), (1000, 50)])
def test_one_case_in_twenty_may_be_left_out(cases, limit):
    assert default_limit(cases) == limit


def test_a_case_without_readable_locations_is_placed_anywhere(stored):
    seen = [Placeable(case) for case in stored]
    assert [draw(0, n, seen, RULE) for n in range(9)] == [draw(0, n, stored, RULE) for n in range(9)]
    for case in stored:
        case.path("locations").write_bytes(b"no array")
    for n in range(9):
        assert all(start >= 0 for start in draw(0, n, seen, RULE).start)
