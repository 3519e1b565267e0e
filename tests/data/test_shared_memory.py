"""How many workers shared memory has room for."""

import pytest

from segkit.data import shared_memory
from segkit.data.shared_memory import affordable_workers, free_bytes


@pytest.mark.parametrize(
    ("free", "workers"),
    [(None, 4), (1000, 4), (100, 4), (99, 3), (60, 2), (59, 1), (40, 1), (39, 0), (0, 0)],
)
def test_workers_times_prefetch_and_two_in_use_must_fit(free, workers):
    assert affordable_workers(4, batch_bytes=10, prefetch=2, free=free) == workers


def test_free_memory_is_told_where_there_is_such_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_memory, "_FOLDER", tmp_path)
    assert free_bytes() > 0
    monkeypatch.setattr(shared_memory, "_FOLDER", tmp_path / "none")
    assert free_bytes() is None
