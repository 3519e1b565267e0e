"""What goes on beside: in another thread, in order, and waited for whatever happens."""

import threading
import time
from contextlib import closing

import pytest

from segkit.workflows.beside import ReadAhead, WriteBehind


def test_what_was_begun_is_read_beside_and_once():
    read, ready = [], threading.Event()

    def slowly(item):
        ready.wait(5)
        read.append((item, threading.current_thread() is threading.main_thread()))
        return item.upper()

    with closing(ReadAhead(slowly)) as reader:
        reader.begin("a")
        assert read == []  # it does not wait
        ready.set()
        assert reader.get("a") == "A"
        assert reader.get("b") == "B"
    assert read == [("a", False), ("b", True)]


def test_something_else_than_what_was_begun_is_read_all_the_same():
    first, second = ["first"], ["first"]  # equal, but not the same
    with closing(ReadAhead(len)) as reader:
        reader.begin(first)
        assert reader.get(second) == 1


def test_an_error_of_reading_comes_with_its_item():
    def fails(item):
        raise ValueError(item)

    with closing(ReadAhead(fails)) as reader:
        reader.begin("a")
        time.sleep(0.01)
        with pytest.raises(ValueError, match="a"):
            reader.get("a")


def test_one_is_written_behind_and_told_in_order():
    told, gate = [], threading.Event()

    def work(name, *, wait=False):
        if wait:
            gate.wait(5)
        told.append(f"wrote {name}")

    with closing(WriteBehind()) as writer:
        writer.submit(lambda: work("a", wait=True), done=lambda future: told.append("told a"))
        assert writer.busy
        assert told == []
        gate.set()
        writer.submit(lambda: work("b"), done=lambda future: told.append("told b"))
        assert told[:2] == ["wrote a", "told a"]
    assert told == ["wrote a", "told a", "wrote b", "told b"]
    assert not writer.busy


def test_what_failed_is_told_too_and_an_error_elsewhere_does_not_lose_it():
    told = []

    def fails():
        raise OSError("disk")

    def interrupted():
        with closing(WriteBehind()) as writer:
            writer.submit(fails, done=lambda future: told.append(str(future.exception())))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert told == ["disk"]
