"""A run says nothing that its user did not ask for."""

import logging
from pathlib import Path

from tests.callbacks.toy import train


def test_no_tips_no_notices(tmp_path: Path, caplog, capfd) -> None:
    train(tmp_path, epochs=1)
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""
    assert [r.message for r in caplog.records if r.levelno >= logging.INFO and not r.name.startswith("segkit")] == []
