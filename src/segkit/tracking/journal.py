"""The local truth of what a run has measured: two files of JSON lines, only ever appended to.

`metrics.jsonl` holds what is the same in every life of a run; two runs of one seed have equal files. `timings.jsonl`
holds the rest: clock, throughput, memory. Each line is

    {"n": samples consumed, "step": optimizer steps, "epoch": number from 1, "key": name, "value": number}

A value that JSON has no number for is "nan", "inf" or "-inf", which `float()` reads.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from segkit.runs.appending import Appender
from segkit.runs.files import atomic_write

CLOCK = "time/clock"
"""Key in the timings: seconds since 1970 at which the values of the same (n, epoch) were measured."""


@dataclass(frozen=True)
class Row:
    """One measured value; see the head of this file."""

    n: int
    step: int
    epoch: int
    key: str
    value: float

    def to_line(self) -> str:
        """One line of JSON, newline included."""
        value: float | str = self.value if math.isfinite(self.value) else str(self.value)
        row = {"n": self.n, "step": self.step, "epoch": self.epoch, "key": self.key, "value": value}
        return json.dumps(row, ensure_ascii=False) + "\n"

    @classmethod
    def from_line(cls, line: str | bytes) -> "Row":
        """The inverse of `to_line`.

        Raises:
            ValueError: The line is none of ours, for instance torn by a kill.
        """
        try:
            row = json.loads(line)
            return cls(int(row["n"]), int(row["step"]), int(row["epoch"]), str(row["key"]), float(row["value"]))
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"not a line of a journal: {error!r}") from error


class Journal:
    """Appends to the two files.

    Lines are handed to the system at once, so they survive a kill; `sync` brings them to the disk. Those that a full
    disk refuses wait in memory.

    Args:
        metrics: File of the deterministic values.
        timings: File of the others.
    """

    def __init__(self, metrics: Path, timings: Path) -> None:
        self.metrics_path, self.timings_path = Path(metrics), Path(timings)
        self._metrics, self._timings = Appender(self.metrics_path), Appender(self.timings_path)

    def metrics(self, values: Mapping[str, float], *, n: int, step: int, epoch: int) -> None:
        """Append to the timings when they were measured, then deterministic values.

        In this order, so that who reads a value finds its time.
        """
        _append(self._timings, [Row(n, step, epoch, CLOCK, time.time())])
        _append(self._metrics, [Row(n, step, epoch, key, float(value)) for key, value in values.items()])

    def timing(self, values: Mapping[str, float], *, n: int, step: int, epoch: int) -> None:
        """Append values that differ from one life to the next."""
        _append(self._timings, [Row(n, step, epoch, key, float(value)) for key, value in values.items()])

    def sync(self) -> None:
        """Bring both files to the disk: before a checkpoint that counts on them.

        Raises:
            OSError: The disk is full or fails; the lines wait.
        """
        for file in (self._metrics, self._timings):
            file.sync()

    def cut(self, n: int) -> None:
        """Forget what was measured after sample `n`, and a torn last line.

        All rows of a checkpoint's n are written before it, so a run that goes on from there loses and repeats none.
        """
        for path in (self.metrics_path, self.timings_path):
            if path.exists():
                old = path.read_bytes()
                kept = "".join(row.to_line() for row in read_rows(path) if row.n <= n)
                if kept.encode() != old:
                    atomic_write(path, kept)


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a journal in the order of writing; lines that are none (torn by a kill) are passed over."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                yield Row.from_line(line)
            except ValueError:
                continue


def _append(file: Appender, rows: list[Row]) -> None:
    file.append("".join(row.to_line() for row in rows))
