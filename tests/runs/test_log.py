"""The log holds what the package says, and a full disk under it ends nothing."""

import logging
from pathlib import Path

from segkit.runs.log import logged_to


def test_information_goes_to_the_file_and_warnings_to_both(tmp_path: Path, capsys) -> None:
    logger = logging.getLogger("segkit.anything")
    before = list(logging.getLogger("segkit").handlers)
    with logged_to(tmp_path / "log.txt"):
        logger.info("for the file: ü")
        logger.warning("for both")
    logger.warning("for neither")
    text = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "INFO segkit.anything: for the file: ü" in text
    assert "WARNING segkit.anything: for both" in text
    assert "neither" not in text
    assert capsys.readouterr().err == "WARNING: for both\n"
    assert logging.getLogger("segkit").handlers == before


def test_a_full_disk_is_said_once_and_ends_nothing(tmp_path: Path, capsys) -> None:
    (tmp_path / "log.txt").symlink_to("/dev/full")
    with logged_to(tmp_path / "log.txt"):
        for number in range(3):
            logging.getLogger("segkit.anything").info("line %d", number)
    said = capsys.readouterr().err
    assert said.count("No space left on device") == 1
    assert "log.txt cannot be written" in said
    assert "Traceback" not in said


def test_a_file_that_cannot_be_made_ends_nothing_either(tmp_path: Path, capsys) -> None:
    with logged_to(tmp_path / "absent" / "log.txt"):
        logging.getLogger("segkit.anything").info("line")
    assert "cannot be written" in capsys.readouterr().err
