"""Order, progress and errors, with and without processes."""

import math
import threading

import pytest

from segkit.data.parallel import parallel_map, worker_context


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order_and_progress_is_told(workers):
    steps = []
    found = parallel_map(math.factorial, range(8), workers=workers, on_done=lambda *step: steps.append(step))
    assert found == [math.factorial(n) for n in range(8)]
    assert steps == [(n + 1, 8) for n in range(8)]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_error_arrives(workers):
    with pytest.raises(ValueError, match="factorial"):
        parallel_map(math.factorial, [3, -1, 4, -2], workers=workers)


def test_nothing_to_do_starts_nothing():
    before = threading.active_count()
    assert parallel_map(math.factorial, [], workers=4) == []
    assert threading.active_count() == before


def test_children_are_not_forked_from_this_process():
    assert worker_context().get_start_method() in ("forkserver", "spawn")
