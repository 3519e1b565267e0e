"""However a process ends, the queue goes on; one runs, one waits, the newest wins."""

import os
import time
from pathlib import Path

import pytest
import torch
from tests.callbacks.evaluations import running, writing

from segkit.callbacks.evaluation_queue import EvaluationQueue
from segkit.runs.checkpoints import write_checkpoint
from segkit.runs.evaluations import QUEUE, Evaluation, result_of
from segkit.runs.files import read_json
from segkit.runs.manifest import Entry, checkpoint_path


@pytest.fixture
def queue_of(tmp_path):
    """Factory of queues; whatever still runs is ended with the test."""
    made = []

    def make(command, *, timeout_s=30.0):
        made.append(EvaluationQueue(tmp_path / "evaluations", command, timeout_s=timeout_s))
        return made[-1]

    yield make
    for queue in made:
        queue.close()


def drain(queue: EvaluationQueue) -> list[Evaluation]:
    """Poll until nothing runs or waits."""
    found, end = [], time.monotonic() + 60
    while queue.leased and time.monotonic() < end:
        if (result := queue.poll()) is not None:
            found.append(result)
        time.sleep(0.005)
    assert not queue.leased
    return found


def write(root: Path, step: int) -> None:
    entry = Entry(step=step, n=2 * step, epoch=step)
    write_checkpoint(checkpoint_path(root, step), entry, model={"w": torch.zeros(1)}, optimizer={}, state={})


def test_a_result_comes_once_and_is_what_was_written(queue_of, tmp_path):
    write(tmp_path, 3)
    queue = queue_of(writing(tmp_path, tmp_path / "evaluations", {3: 0.25}))
    queue.submit(3)
    queue.submit(3)
    assert queue.leased == {3}
    assert read_json(queue.folder / QUEUE) == {"running": 3, "waiting": None}
    (result,) = drain(queue)
    assert (result.step, result.score, result.per_case) == (3, 0.25, {"case0": 0.25, "case1": None})
    assert result.values == {"val/score": 0.25, "val/loss": float("inf")}
    assert queue.poll() is None
    assert not (queue.folder / QUEUE).exists()


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("raise SystemExit(65)", "left with exit code 65"),
        ("print('what it was'); 1 / 0", "left with exit code 1"),
        ("import os; os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
        ("import os; os.kill(os.getpid(), 11)", "was ended by SIGSEGV"),
        ("pass", "its result cannot be read"),
    ],
)
def test_every_bad_end_is_named_and_the_next_one_starts(queue_of, caplog, code, how):
    queue = queue_of(running(code))
    queue.submit(3)
    queue.submit(6)
    assert drain(queue) == []
    told = [record for record in caplog.records if "failed" in record.message]
    assert [record.levelname for record in told] == ["WARNING", "WARNING"]
    assert "step 3 failed" in told[0].message
    assert "step 6 failed" in told[1].message
    assert how in told[0].message
    log = Path(told[0].message.rpartition("its output: ")[2].removesuffix(". Training goes on."))
    assert log.is_file()
    if "1 / 0" in code:
        assert "what it was" in log.read_text()
        assert "ZeroDivisionError" in log.read_text()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": 3}', '{"step": 6}'])
def test_half_a_result_is_none(queue_of, caplog, text):
    queue = queue_of(running(""))
    path = result_of(queue.folder, 3)
    queue.command = running(f"open({str(path)!r}, 'w').write({text!r})")
    queue.submit(3)
    assert drain(queue) == []
    assert "its result cannot be read" in caplog.text


def test_an_old_result_is_not_taken_for_a_new_one(queue_of, caplog):
    queue = queue_of(running(""))
    queue.folder.mkdir()
    Evaluation(3, "0", 0.9, {}, {}).write(queue.folder)
    queue.submit(3)
    assert drain(queue) == []
    assert "its result cannot be read" in caplog.text


def test_a_process_that_hangs_is_ended_with_its_children_in_time(queue_of, caplog, tmp_path):
    note = tmp_path / "pid"
    code = f"import os, time; child = os.fork(); open({str(note)!r} + str(bool(child)), 'w').write(str(os.getpid()))"
    queue = queue_of(running(f"{code}; time.sleep(600)"), timeout_s=1.0)
    queue.submit(3)
    assert drain(queue) == []
    assert "longer than validation.timeout_s=1 " in caplog.text
    for name in ("pidTrue", "pidFalse"):
        pid = int((tmp_path / name).read_text())
        end = time.monotonic() + 5
        while alive(pid) and time.monotonic() < end:
            time.sleep(0.01)
        assert not alive(pid)


def test_one_waits_at_most_and_the_newest_does(queue_of, caplog, tmp_path):
    for step in (3, 6, 9, 12):
        write(tmp_path, step)
    scores = {3: 0.1, 6: 0.2, 9: 0.3, 12: 0.4}
    queue = queue_of(writing(tmp_path, tmp_path / "evaluations", scores, first="import time; time.sleep(0.5)\n"))
    for step in scores:
        queue.submit(step)
    assert queue.leased == {3, 12}
    assert [result.step for result in drain(queue)] == [3, 12]
    assert [f"step {step} is left out" in caplog.text for step in scores] == [False, True, True, False]


def test_three_failures_in_a_row_are_said_louder_and_a_success_begins_anew(queue_of, caplog, tmp_path):
    write(tmp_path, 12)
    queue = queue_of(running("raise SystemExit(1)"))
    for step in (3, 6, 9):
        queue.submit(step)
        drain(queue)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "ERROR"]
    assert "3 EVALUATIONS IN A ROW" in caplog.text
    queue.command = writing(tmp_path, queue.folder, {12: 0.5})
    queue.submit(12)
    assert len(drain(queue)) == 1
    assert queue.failures == 0


def test_a_process_that_cannot_be_started_is_a_failure_like_others(queue_of, caplog):
    queue = queue_of(lambda step: ["/no/such/program"])
    queue.submit(3)
    assert queue.leased == set()
    assert "could not be started" in caplog.text


def test_closing_ends_the_process_and_leaves_nothing(queue_of, tmp_path):
    queue = queue_of(running("import time; time.sleep(600)"))
    queue.submit(3)
    queue.submit(6)
    pid = queue._process.pid
    queue.close()
    assert not alive(pid)
    assert queue.leased == set()
    assert not (queue.folder / QUEUE).exists()
    assert queue.poll() is None


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def test_the_process_is_in_a_group_of_its_own(queue_of):
    queue = queue_of(running("import time; time.sleep(600)"))
    queue.submit(3)
    assert os.getpgid(queue._process.pid) == queue._process.pid != os.getpgid(0)
