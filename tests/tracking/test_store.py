"""Addresses of stores, explicit and absolute."""

import sqlite3
from pathlib import Path

import pytest

from segkit.errors import UsageError
from segkit.tracking import store as store_module
from segkit.tracking.store import check_sqlite, file_system, first_open, shown, store_uri


def test_store_uri(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert store_uri("runs/mlflow.db") == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert store_uri("sqlite:///x.db") == f"sqlite:///{tmp_path}/x.db"
    assert store_uri("sqlite:////abs/x.db") == "sqlite:////abs/x.db"
    assert store_uri("http://127.0.0.1:5000") == "http://127.0.0.1:5000"
    (tmp_path / "mlruns").mkdir()
    for old in ("mlruns", "file:./mlruns"):
        with pytest.raises(UsageError, match="file store"):
            store_uri(old)


def test_first_open_makes_the_folder(tmp_path: Path) -> None:
    with first_open(store_uri(tmp_path / "a" / "b" / "mlflow.db")):
        assert list(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a" / "b"]


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:30 / /home rw - nfs4 server:/home rw,vers=4.2
31 30 8:2 / /home/me/local\\040disk rw shared:2 master:3 - xfs /dev/sdb1 rw
32 22 0:33 / /mnt/s rw - fuse.sshfs me@host:/ rw
33 22 0:34 / /over rw - cifs //server/share rw
34 22 0:35 / /over rw - tmpfs tmpfs rw
torn line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/mlflow.db", "ext4"),
        ("/home/me/runs/mlflow.db", "nfs4"),
        ("/home/me/local disk/mlflow.db", "xfs"),
        ("/homestead/mlflow.db", "ext4"),
        ("/mnt/s/a/b/mlflow.db", "fuse.sshfs"),
        ("/over/mlflow.db", "tmpfs"),
    ],
)
def test_file_system_is_that_of_the_nearest_mount(tmp_path: Path, path: str, kind: str) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    assert file_system(Path(path), mountinfo=tmp_path / "mountinfo") == kind


def test_without_mountinfo_nothing_is_known(tmp_path: Path) -> None:
    assert file_system(tmp_path, mountinfo=tmp_path / "none") == ""
    assert file_system(tmp_path) != "" or not Path("/proc/self/mountinfo").exists()


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "fuse.gcsfuse", "lustre", "ceph"])
def test_a_sqlite_file_on_a_network_drive_is_refused_by_name(tmp_path: Path, monkeypatch, kind: str) -> None:
    monkeypatch.setattr(store_module, "file_system", lambda _path: kind)
    with pytest.raises(UsageError, match="mlflow server") as refused:
        check_sqlite(store_uri(tmp_path / "mlflow.db"))
    assert kind in str(refused.value)
    check_sqlite("http://127.0.0.1:5000")  # a server is what is advised


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "overlay", "tmpfs", "apfs", "fuseblk", "fuse.fuse-overlayfs", "9p", ""]
)
def test_local_drives_are_taken(tmp_path: Path, monkeypatch, kind: str) -> None:
    monkeypatch.setattr(store_module, "file_system", lambda _path: kind)
    check_sqlite(store_uri(tmp_path / "mlflow.db"))


def test_a_file_that_is_no_database_is_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database, certainly not one" * 40)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        check_sqlite(store_uri(tmp_path / "mlflow.db"))


def test_passwords_are_not_shown() -> None:
    assert shown("postgresql://me:secret@host/db") == "postgresql://host/db"
    assert shown("sqlite:////a/b@c/mlflow.db") == "sqlite:////a/b@c/mlflow.db"
