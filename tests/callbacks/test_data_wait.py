"""The advice as a table against the time of a step, and the one warning of a life."""

import itertools
import logging
from pathlib import Path

import pytest
from tests.callbacks.test_throughput import SlowData, Times
from tests.callbacks.toy import ToyData, train

from segkit.callbacks.data_wait import DataWait, Loading, advise
from segkit.callbacks.throughput import Throughput


@pytest.mark.parametrize(
    ("share", "loading", "text", "gain"),
    [
        # A third of the time is waiting: three processes do what two do in 2/3 of the time.
        (1 / 3, Loading(2, cores=16, threads=1, room=99), "data.workers=3 (now 2)", 1.5),
        # 2/3: six would do, but four is all the cores there are; twice as fast.
        (2 / 3, Loading(2, cores=5, threads=1, room=99), "data.workers=4 (now 2)", 2.0),
        # In line, half the time: one process loads beside it.
        (0.5, Loading(0, cores=4, threads=1, room=99), "data.workers=1 (now 0)", 2.0),
        (0.75, Loading(0, cores=8, threads=1, room=99), "data.workers=3 (now 0)", 4.0),
        # On a CPU whose threads leave cores free.
        (0.2, Loading(0, cores=4, threads=3, room=9), "data.workers=1 (now 0)", 1.25),
        # Whose threads leave none: giving one of eight away pays, one of two does not.
        (0.3, Loading(0, cores=8, threads=8, room=9), "trainer.threads=7 data.workers=1 (now 8 and 0)", 1.25),
        (0.3, Loading(0, cores=2, threads=2, room=9), "all 2 cores are at work: paths.cache on a faster disk", 1 / 0.7),
        # More processes than cores.
        (0.3, Loading(4, cores=4, threads=3, room=9), "data.workers=1 (now 4", 1 / 0.7),
        # All cores load already.
        (0.3, Loading(3, cores=4, threads=1, room=9), "all 4 cores are at work: paths.cache", 1 / 0.7),
        # No room in shared memory.
        (0.5, Loading(1, cores=8, threads=1, room=1), "--shm-size=8g, and data.workers=2 (now 1)", 2.0),
        (0.5, Loading(0, cores=8, threads=1, room=0), "--shm-size=8g, and data.workers=1 (now 0)", 2.0),
    ],
)
def test_the_key_and_the_gain(share: float, loading: Loading, text: str, gain: float) -> None:
    advice = advise(share, loading)
    assert text in advice.text
    assert advice.gain == pytest.approx(gain)


def test_no_gain_exceeds_what_computing_alone_would_take() -> None:
    for share, workers, cores, threads, room in itertools.product(
        (0.11, 0.34, 0.66, 0.9, 1.0), (0, 1, 4, 20), (1, 2, 16), (1, 2, 16), (0, 1, 99)
    ):
        advice = advise(share, Loading(workers, cores, min(threads, cores), room))
        assert 1.0 <= advice.gain <= 1 / (1 - min(share, 0.99)) + 1e-9
        assert advice.text


class Data(SlowData):
    workers = 2

    def room_for(self, workers: int) -> int:
        return workers


def test_said_once_a_life_and_not_of_its_first_epoch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    throughput = Throughput(Times())
    warn = DataWait(lambda: throughput.latest)
    with caplog.at_level(logging.WARNING, "segkit.callbacks.data_wait"):
        train(tmp_path, epochs=3, callbacks=(throughput, warn), data=Data())
    said = [record.getMessage() for record in caplog.records if record.name == "segkit.callbacks.data_wait"]
    assert len(said) == 1
    assert " % of epoch 2 for data: " in said[0]
    assert said[0].endswith(" times as fast.")


def test_nothing_is_said_where_little_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn = DataWait(lambda: {"time/data_wait": 0.10})
    train(tmp_path, epochs=2, callbacks=(warn,), data=ToyData())
    assert "waited" not in caplog.text
