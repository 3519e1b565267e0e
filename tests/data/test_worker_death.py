"""What a person is told of a worker that died or hung."""

import signal

import pytest

from segkit.data.worker_death import died, hung

PLACE = "case a, /cache/x/image.npy, sample n=7"


@pytest.mark.parametrize(
    ("code", "what", "mend"),
    [
        (-signal.SIGKILL, "was killed by SIGKILL", "memory"),
        (-signal.SIGSEGV, "was killed by SIGSEGV", "data.workers=0"),
        (-signal.SIGBUS, "was killed by SIGBUS", "--shm-size"),
        (-signal.SIGTERM, "was killed by SIGTERM", "same command"),
        (-250, "was killed by signal 250", "same command"),
        (3, "ended with exit code 3", "same command"),
        (None, "died", "same command"),
    ],
)
def test_how_it_ended_and_what_helps(code, what, mend):
    error = died({2: PLACE}, {2: code})
    assert what in error.what
    assert error.where == f"{PLACE}, loader worker 2"
    assert error.why
    assert mend in error.mend


def test_all_dead_workers_are_named():
    error = died({0: "case a, f", 3: "case b, g"}, {0: -9, 3: -9})
    assert error.where == "case a, f, loader worker 0; case b, g, loader worker 3"


def test_a_hang_names_the_key_that_ended_it():
    error = hung({1: PLACE}, seconds=300.0)
    assert "300 s" in error.what
    assert "data.timeout_s=300" in error.why
    assert PLACE in error.where
