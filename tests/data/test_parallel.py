"""Order, progress and errors, with and without processes."""

import math
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from segkit.data.parallel import parallel_map, worker_context


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order_and_progress_is_told(workers):
    steps = []
    found = parallel_map(math.factorial, range(8), workers=workers, on_done=lambda *step: steps.append(step))
    assert found == [math.factorial(n) for n in range(8)]
    assert steps == [(n + 1, 8) for n in range(8)]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_error_arrives(workers):
    with pytest.raises(ValueError, match="factorial"):
        parallel_map(math.factorial, [3, -1, 4, -2], workers=workers)


def test_nothing_to_do_starts_nothing():
    before = threading.active_count()
    assert parallel_map(math.factorial, [], workers=4) == []
    assert threading.active_count() == before


def test_children_are_not_forked_from_this_process():
    assert worker_context().get_start_method() in ("forkserver", "spawn")


STUCK = """
import multiprocessing, os, time
from segkit.data import parallel

def stuck(ready):
    parallel.die_with_parent()
    ready.send(os.getpid())
    time.sleep(600)

if __name__ == "__main__":
    parallel._PRELOADED.clear()
    here, there = multiprocessing.Pipe()
    child = parallel.worker_context().Process(target=stuck, args=(there,))
    child.start()
    print(here.recv(), flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_child_that_is_stuck_dies_with_a_main_process_that_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(STUCK)
    main = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    child = int(main.stdout.readline())
    main.kill()
    main.communicate()
    until = time.monotonic() + 15
    while _lives(child):
        assert time.monotonic() < until
        time.sleep(0.05)


def _lives(pid):
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
