"""How threads wait is set once, and never against whoever started the program."""

import os
import subprocess
import sys

import pytest

from segkit.configuration.thread_waiting import SPIN_COUNT, WAIT_POLICY, settle_waiting


def test_they_spin_for_a_moment_and_then_sleep() -> None:
    environment: dict[str, str] = {}
    settle_waiting(environment)
    assert environment[WAIT_POLICY] == "PASSIVE"
    assert 0 < int(environment[SPIN_COUNT]) < 20_000  # far below GNU's own, 300,000


@pytest.mark.parametrize("given", [{WAIT_POLICY: "ACTIVE"}, {SPIN_COUNT: "0"}])
def test_who_has_set_it_is_left_alone(given: dict[str, str]) -> None:
    environment = dict(given)
    settle_waiting(environment)
    assert environment == given


def test_openmp_takes_it() -> None:
    """What torch's OpenMP says it has read, from a process that sets it before torch is there."""
    code = (
        "import os\n"
        "from segkit.configuration.thread_waiting import settle_waiting\n"
        "settle_waiting(os.environ)\n"
        "import torch\n"
        "torch.ones(1)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in (WAIT_POLICY, SPIN_COUNT)}
    told = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    if "GOMP_SPINCOUNT" not in told:
        pytest.skip("torch brings another OpenMP than GNU's here")
    assert "GOMP_SPINCOUNT = '2000'" in told
