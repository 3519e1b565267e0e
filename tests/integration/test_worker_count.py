"""The number of loader processes changes the speed and nothing else: weights, moments, every line of the journal."""

import pytest

from segkit.workflows.train import run

SLOW = [pytest.param(*each, marks=pytest.mark.slow) for each in ((1, True), (1, False), (4, False))]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # four on two cores: torch advises against it
@pytest.mark.parametrize(("workers", "persistent"), [(4, True), *SLOW])
def test_the_same_weights_with_any_number_of_workers(run_config, end_state, assert_bitwise_equal, workers, persistent):
    expected = end_state(run(run_config("none")).directory.path)
    config = run_config("some", f"data.workers={workers}", f"data.persistent_workers={str(persistent).lower()}")
    assert_bitwise_equal(expected, end_state(run(config).directory.path))
