"""The tables of a new sqlite store, all of them or no store: MLflow makes them in some forty steps.

A process that is killed between two of those leaves a file that MLflow neither completes nor opens, for any run
("duplicate column name"). The tables are therefore made in a file beside it, which then takes the store's name.
"""

import os
from pathlib import Path

from mlflow.store.db import utils

from segkit.runs.leftovers import abandoned, discard, temporary_beside


def make_tables(file: Path) -> None:
    """Make a sqlite store where there is none, or only an empty file. For who holds `store.first_open`.

    Args:
        file: The store; its folder exists.

    Raises:
        OSError: As the system gave it; nothing is left behind.
    """
    for leftover in file.parent.glob(f".{file.name}.*"):
        if abandoned(leftover):
            discard(leftover)
    if file.exists() and file.stat().st_size:
        return
    beside = temporary_beside(file)
    beside.mkdir()
    try:
        engine = utils.create_sqlalchemy_engine_with_retry(f"sqlite:///{beside / file.name}")  # type: ignore[no-untyped-call]
        try:
            utils._initialize_tables(engine)  # type: ignore[no-untyped-call]
        finally:
            engine.dispose()  # no connection holds the file under its old name
        os.replace(beside / file.name, file)
    finally:
        discard(beside)
