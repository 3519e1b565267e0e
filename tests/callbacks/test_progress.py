"""One line an epoch."""

import io
from pathlib import Path

from lightning.pytorch.callbacks import TQDMProgressBar
from tests.callbacks.test_recording import Rows
from tests.callbacks.toy import ToyModule, train

from segkit.callbacks.progress import EpochLines, epoch_line, progress
from segkit.callbacks.recording import Recording


def test_line_shows_what_is_known_and_nothing_else() -> None:
    facts = {"train/loss_epoch": 0.5, "val/score": 0.75, "time/epoch_s": 12.34, "time/data_wait": 0.031}
    line = epoch_line(facts, epoch=3, max_epochs=60, best=(0.8, 2))
    assert line == "epoch 3/60  loss 0.5000  score 0.7500  best 0.8000 (epoch 2)  12.3 s, 3% waiting for data"
    assert epoch_line({}, epoch=3, max_epochs=-1) == "epoch 3"


def test_one_line_an_epoch_off_a_terminal(tmp_path: Path) -> None:
    stream = io.StringIO()
    recording = Recording(Rows())
    lines = progress(lambda: recording.latest, stream=stream)
    train(tmp_path, callbacks=(recording, *lines), module=ToyModule(scores=[0.5, 0.4]))
    first, second = stream.getvalue().splitlines()
    assert first.startswith("epoch 1/2  loss ")
    assert "score 0.5000" in first
    assert "score 0.4000  best 0.5000 (epoch 1)" in second


def test_a_bar_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    bar, lines = progress(dict, stream=Terminal())
    assert isinstance(bar, TQDMProgressBar)
    assert isinstance(lines, EpochLines)
