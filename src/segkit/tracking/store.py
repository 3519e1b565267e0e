"""Where MLflow keeps its runs: an address, and the first opening of a sqlite file. Imports no MLflow."""

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from segkit.errors import UsageError


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
    if not uri.startswith("sqlite:"):
        yield
        return
    store = Path(uri.removeprefix("sqlite:///"))
    store.parent.mkdir(parents=True, exist_ok=True)
    # The lock lies in the temporary folder under the store's name: sqlite's own folder keeps no extra file.
    name = hashlib.sha256(str(store.resolve()).encode()).hexdigest()[:16]
    with (Path(tempfile.gettempdir()) / f"segkit-mlflow-{os.getuid()}-{name}.lock").open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield
