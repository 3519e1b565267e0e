"""The deadline, with processes that would live for a minute."""

import subprocess
import threading
import time

import pytest

from segkit.data.deadline import Deadline


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_a_wait_beyond_it_kills(sleeper):
    deadline = Deadline(0.3)
    deadline.start([sleeper.pid])
    with deadline:
        assert sleeper.wait(30) == -9
    assert deadline.passed


def test_shorter_waits_do_not_add_up(sleeper):
    deadline = Deadline(1.0)
    deadline.start([sleeper.pid])
    for _ in range(15):
        with deadline:
            time.sleep(0.1)
    assert not deadline.passed
    assert sleeper.poll() is None
    deadline.close()


def test_time_without_a_wait_does_not_count(sleeper):
    deadline = Deadline(0.2)
    deadline.start([sleeper.pid])
    time.sleep(0.6)
    assert sleeper.poll() is None
    deadline.close()


def test_time_in_which_the_process_stood_still_counts_as_two_ticks(sleeper, monkeypatch):
    """Ctrl-Z for an hour, in the middle of a wait."""
    deadline, clock, real = Deadline(20.0), {"ahead": 0.0}, time.monotonic
    monkeypatch.setattr("segkit.data.deadline.time.monotonic", lambda: real() + clock["ahead"])
    deadline.start([sleeper.pid])
    with deadline:
        time.sleep(0.7)
        clock["ahead"] = 3600.0
        time.sleep(1.2)
    assert not deadline.passed
    deadline.close()


def test_closed_it_leaves_no_thread():
    deadline = Deadline(0.2)
    deadline.start([])
    deadline.close()
    for thread in threading.enumerate():
        if thread.name == "loader deadline":
            thread.join(10)
            assert not thread.is_alive()
