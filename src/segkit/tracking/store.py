"""Where MLflow keeps its runs: an address, what lies under it, the first opening. Imports no MLflow."""

import contextlib
import fcntl
import hashlib
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from segkit.errors import UsageError

_SQLITE = "sqlite:///"
_BUSY_S = 20.0  # as MLflow waits
_NETWORK = re.compile(
    r"nfs[34]?|cifs|smb[23]?|smbfs|afs|ceph|lustre|gpfs|beegfs\w*|orangefs|pvfs2|ocfs2|gfs2|davfs|ncpfs|panfs|"
    r"fuse\.(sshfs|s3fs|s3ql|rclone|gcsfuse|goofys|juicefs|glusterfs|ceph|davfs2?|curlftpfs|blobfuse2?|smbnetfs|"
    r"cvmfs2?|moosefs|mfs|seaweedfs|alluxio\S*|mount-s3|mountpoint-s3)"
)
"""File systems, by their type in mountinfo, on which several hosts may meet and sqlite's locks do not hold."""


def store_uri(store: str | Path) -> str:
    """Tracking URI of `store`: a server's address as it is, a path as an explicit, absolute sqlite URI.

    Raises:
        UsageError: MLflow's old file store, which MLflow itself no longer opens.
    """
    text = str(store)
    if text.startswith(("http://", "https://", "sqlite:////", "postgresql", "mysql", "mssql")):
        return text
    path = Path(text.removeprefix("sqlite:///")).expanduser().absolute()
    if text.startswith("file:") or path.is_dir():
        raise UsageError(
            "That is an MLflow file store, which MLflow no longer opens.",
            where=f"paths.mlflow={text}",
            mend=f"paths.mlflow={path.parent / 'mlflow.db'}; `mlflow migrate-filestore` brings old runs over",
        )
    return f"sqlite:///{path}"


@contextlib.contextmanager
def first_open(uri: str) -> Iterator[None]:
    """One process at a time makes the tables of a sqlite store, or the experiment."""
    store = sqlite_file(uri)
    if store is None:
        yield
        return
    store.parent.mkdir(parents=True, exist_ok=True)
    # The lock lies in the temporary folder under the store's name: sqlite's own folder keeps no extra file.
    name = hashlib.sha256(str(store.resolve()).encode()).hexdigest()[:16]
    with (Path(tempfile.gettempdir()) / f"segkit-mlflow-{os.getuid()}-{name}.lock").open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def sqlite_file(uri: str) -> Path | None:
    """The file of a sqlite store; None for a server."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def is_on_this_machine(uri: str) -> bool:
    """Whether it is a sqlite file, or a server on this machine."""
    return sqlite_file(uri) is not None or urlsplit(uri).hostname in {"localhost", "127.0.0.1", "::1"}


def shown(uri: str) -> str:
    """The address without a password, for people."""
    return re.sub(r"//[^/@]*@", "//", uri)


def check_sqlite(uri: str) -> None:
    """Look at the file of a sqlite store before MLflow does, which would try to open a damaged one for minutes.

    Raises:
        UsageError: It lies on a network drive.
        sqlite3.Error: It is no sqlite file, or another process has locked it for too long.
    """
    file = sqlite_file(uri)
    if file is None:
        return
    refuse_network_drive(file)
    if file.is_file():
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=_BUSY_S)) as store:
            store.execute("SELECT count(*) FROM sqlite_master")


def refuse_network_drive(file: Path) -> None:
    """Do nothing where sqlite is safe.

    Raises:
        UsageError: The file would lie on a network drive.
    """
    kind = file_system(file)
    if _NETWORK.fullmatch(kind):
        raise UsageError(
            f"MLflow's sqlite file would lie on a network drive ({kind}), where sqlite's locks do not hold.",
            where=str(file),
            why="two runs that write at once would damage it",
            mend="paths.mlflow=<a file on a local drive>, or tracking.uri=http://HOST:5000 with a server on HOST: "
            "mlflow server --host 0.0.0.0 --backend-store-uri sqlite:////LOCAL/DRIVE/mlflow.db",
        )


def file_system(path: Path, *, mountinfo: Path = Path("/proc/self/mountinfo")) -> str:
    """Type of the file system that `path` lies on, or will lie on; empty where the system does not say.

    Args:
        path: Absolute. Need not exist.
        mountinfo: As Linux writes it: `36 35 98:0 / /mount/point rw,noatime master:1 - type source options`.
    """
    try:
        lines = mountinfo.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    path, best, kind = path.resolve(), -1, ""
    for line in lines:
        words, _, rest = line.partition(" - ")
        if len(words.split()) < 5 or not rest:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), words.split()[4])
        if path.is_relative_to(point) and len(point) >= best:  # the later one lies over the earlier
            best, kind = len(point), rest.split()[0]
    return kind
