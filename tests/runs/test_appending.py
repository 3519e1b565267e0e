"""Nothing that was appended is lost, torn or doubled, however often the disk is full."""

import errno
from pathlib import Path

import pytest
from tests.reliability.borders import faulty

from segkit.runs.appending import Appender


def test_lines_are_in_the_file_at_once(tmp_path: Path) -> None:
    file = Appender(tmp_path / "a")
    file.sync()
    assert not (tmp_path / "a").exists()
    file.append("one\n")
    file.append("zwölf\n")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "one\nzwölf\n"
    file.sync()
    assert file.waiting == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_full_disk_at_any_byte_loses_and_tears_nothing(tmp_path: Path, caplog, number: int) -> None:
    for border in range(12):
        path = tmp_path / f"{border}"
        file = Appender(path)
        file.append("first\n")
        caplog.clear()
        with faulty(border, number, lasting=True):
            file.append("second\n")
            file.append("third\n")
            if file.waiting:
                with pytest.raises(OSError, match="Errno") as refused:
                    file.sync()
                assert refused.value.errno == number
        assert "first\nsecond\nthird\n".startswith(path.read_text())
        assert sum("wait in memory" in record.message for record in caplog.records) == 1
        file.append("fourth\n")
        assert path.read_text() == "first\nsecond\nthird\nfourth\n"
        assert sum("can be written again" in record.message for record in caplog.records) == 1
        assert file.waiting == 0


def test_the_systems_own_full_device(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    file = Appender(tmp_path / "full")
    file.append("line\n")
    assert file.waiting == 5
    with pytest.raises(OSError, match="No space left"):
        file.sync()


def test_another_fault_is_raised(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Appender(tmp_path / "absent" / "file").append("line\n")
