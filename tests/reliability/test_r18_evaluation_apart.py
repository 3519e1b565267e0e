"""R18: whatever happens to an evaluation apart from the training (crash, hang, kill, slowness), the training goes on.

Its result is applied exactly once, to the checkpoint it is of, and is that of a validation within the training. One
waits at most, the newest; what is being evaluated is not pruned. The end of the training, however it comes, ends the
evaluation within five seconds; the next life does again what is missing.
"""

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from lightning.pytorch import Callback
from tests.reliability.fork_server import verb
from tests.reliability.processes import ROOT, leftovers, until

from segkit.callbacks.checkpointing import Checkpointing
from segkit.callbacks.evaluation_apart import EvaluationApart
from segkit.errors import Preempted
from segkit.runs.files import read_json
from segkit.runs.index import load_index
from segkit.runs.manifest import checkpoint_steps
from segkit.runs.scores import SCORE
from segkit.tracking.journal import read_rows
from segkit.workflows.train import run

pytestmark = pytest.mark.alone

APART = "validation.where=apart"
TOLERANCE = 1e-6


def evaluators(run_folder: Path) -> list[int]:
    """Processes that evaluate checkpoints of a run."""
    mark, found = b"segkit._evaluator\0" + str(run_folder).encode() + b"\0", []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def values(run_folder: Path) -> dict[tuple[str, int, int, int], float]:
    """Rows of the journal but for those of the clock; each must be there once."""
    rows = [((row.key, row.n, row.step, row.epoch), row.value) for row in read_rows(run_folder / "metrics.jsonl")]
    twice = [place for place, count in Counter(place for place, _ in rows).items() if count > 1]
    assert twice == []
    return dict(rows)


def scored(run_folder: Path) -> dict[int, float]:
    """Scores in the journal, by step."""
    return {step: value for (key, _, step, _), value in values(run_folder).items() if key == "val/score"}


@pytest.fixture
def runs(tmp_path):
    if not Path("/proc").is_dir():
        pytest.skip("needs /proc")
    return tmp_path / "runs"


@pytest.fixture
def troubled(tmp_path, monkeypatch):
    """Overrides of a run whose evaluations obey: `troubled("crash")`; the file `go` beside the orders lets them go."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    orders = tmp_path / "orders"

    def order(what: str) -> list[str]:
        orders.write_text(what)
        return ["loss=custom", "loss._target_=tests.reliability.troubled.TroubledLoss", f"loss.args.orders={orders}"]

    return order


@pytest.mark.parametrize("averaged", [False, True])
def test_scores_and_weights_are_those_of_a_validation_within_the_training(
    run_config, runs, end_state, assert_bitwise_equal, size, averaged
):
    if averaged and not size(False, True):
        pytest.skip("at full size only")
    settings = ["validation.every_n_epochs=2", *(["trainer.ema_decay=0.9"] if averaged else [])]
    settings.append("loss.schedule={ce: {0: 1.0, 1: 3.0}}")  # val/loss is that of the epoch
    for where in ("here", "apart"):
        run(run_config(where, f"validation.where={where}", *settings))
    here, apart = end_state(runs / "here"), end_state(runs / "apart")
    assert abs(here.pop("score") - apart.pop("score")) < TOLERANCE
    del here["metrics"], apart["metrics"]
    assert_bitwise_equal(here, apart)
    expected, found = values(runs / "here"), values(runs / "apart")
    assert expected.keys() == found.keys()
    assert any(key == "val/loss" for key, *_ in found)
    assert max(abs(expected[place] - found[place]) for place in expected) < TOLERANCE
    (one,), (other,) = (
        [e for e in load_index(runs / name / "checkpoints") if e.validated] for name in ("here", "apart")
    )
    assert one.per_case.keys() == other.per_case.keys()
    assert all(abs(one.per_case[case] - other.per_case[case]) < TOLERANCE for case in one.per_case)
    for name in ("index.json", "best.json"):
        assert read_json(runs / "here/checkpoints" / name).keys() == read_json(runs / "apart/checkpoints" / name).keys()
    assert read_json(runs / "apart/STATUS.json")["selection_score_optimistic"] is not None
    assert not (runs / "apart/evaluations").exists()


def test_an_evaluation_that_is_killed_at_any_instant_costs_its_score_alone(
    run_config, runs, end_state, assert_bitwise_equal, size, caplog
):
    run(run_config("whole", "trainer.max_epochs=1"))
    expected = end_state(runs / "whole")
    rng, killed = np.random.default_rng(18), 0
    for number in range(size(2, 20)):
        name, caught = f"killed-{number}", []
        thread = threading.Thread(target=_kill, args=(runs / name, rng.uniform(0, size(1.5, 3.0)), caught))
        caplog.clear()
        thread.start()
        run(run_config(name, APART, "trainer.max_epochs=1"))
        thread.join()
        found = end_state(runs / name)
        for key in ("weights", "raw weights", "moments"):
            assert_bitwise_equal({key: found[key]}, {key: expected[key]})
        (entry,) = load_index(runs / name / "checkpoints")
        if "was ended by SIGKILL" in caplog.text:
            killed += 1
            assert "The evaluation of step 3 failed" in caplog.text
            assert (entry.score, scored(runs / name)) == (None, {})
            assert (runs / name / "evaluations/step-00000003.log").is_file()
        else:
            assert abs(entry.score - expected["score"]) < TOLERANCE
            assert scored(runs / name) == {3: entry.score}
        assert read_json(runs / name / "STATUS.json")["ended"] is True
        assert leftovers(runs / name) == []
    assert killed >= size(1, 10)


def _kill(run_folder: Path, delay: float, caught: list[int]) -> None:
    if until(lambda: bool(evaluators(run_folder)), within=60, every=0.001):
        time.sleep(delay)
        for pid in evaluators(run_folder):
            caught.append(pid)
            os.kill(pid, signal.SIGKILL)


def test_a_crash_is_told_with_its_log(run_config, runs, troubled, caplog):
    run(run_config("crash", APART, "trainer.max_epochs=1", *troubled("crash")))
    assert "The evaluation of step 3 failed: it left with exit code 1" in caplog.text
    assert "failed on purpose" in (runs / "crash/evaluations/step-00000003.log").read_text()
    assert [e.score for e in load_index(runs / "crash/checkpoints")] == [None]
    assert read_json(runs / "crash/STATUS.json")["selected"] == "step-00000003"


def test_a_hang_ends_in_its_time(run_config, runs, troubled, caplog, size):
    limit = size(1.0, 20.0)
    began = time.monotonic()
    run(run_config("hang", APART, "trainer.max_epochs=1", f"validation.timeout_s={limit}", *troubled("hang")))
    assert time.monotonic() - began < limit + 60
    assert f"longer than validation.timeout_s={limit:g} and was ended" in caplog.text
    assert evaluators(runs / "hang") == []


class _Go(Callback):
    """Lets the evaluations go on when all is trained; notes what was at work and what waited."""

    def __init__(self, go: Path) -> None:
        self.go, self.seen, self.steps = go, (), []

    def on_train_end(self, trainer, *_):
        apart = next(c for c in trainer.callbacks if isinstance(c, EvaluationApart))
        self.seen = (apart.queue.running, apart.queue.waiting)
        self.steps = checkpoint_steps(apart.checkpointing.root)
        self.go.touch()


@pytest.mark.slow
def test_a_slow_one_holds_up_nothing_and_the_newest_waits(run_config, runs, troubled, tmp_path, caplog):
    go = _Go(tmp_path / "go")
    run(run_config("slow", APART, "trainer.max_epochs=5", *troubled("wait")), callbacks=[go])
    assert go.seen == (3, 15)
    assert go.steps == [3, 12, 15]  # the first one only because it was being read
    assert [f"The evaluation of step {step} is left out" in caplog.text for step in (3, 6, 9, 12, 15)] == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert list(scored(runs / "slow")) == [3, 15]
    by_step = {e.step: e.score for e in load_index(runs / "slow/checkpoints")}
    assert by_step[15] == scored(runs / "slow")[15]


@pytest.mark.slow
def test_the_end_of_the_training_ends_the_evaluation_and_the_next_life_does_it_again(
    forks, train_argv, runs, end_state, assert_bitwise_equal, tmp_path, size
):
    settings = ("trainer.max_epochs=2", "validation.every_n_epochs=2")
    child = forks.start(verb, "train", *train_argv("whole", *settings), output=tmp_path / "whole")
    assert child.wait() == 0, child.stderr
    expected = end_state(runs / "whole")
    rng, interrupted = np.random.default_rng(18), 0
    for number in range(size(1, 8)):
        name = f"ended-{number}"
        argv = train_argv(name, APART, *settings)
        for which, code in ((signal.SIGTERM, 75), (signal.SIGKILL, -signal.SIGKILL)):
            child = forks.start(verb, "train", *argv, output=tmp_path / name)
            assert until(lambda n=name, c=child: bool(evaluators(runs / n)) or not c.running(), within=60)
            time.sleep(rng.uniform(0, size(0.3, 3.0)))
            child.kill(which)
            ended = child.wait(20)
            # 0: the evaluation was through before the signal came, which may then still meet Python's own end
            status = runs / name / "STATUS.json"
            assert ended in (code, 0) or read_json(status).get("ended"), (ended, child.stderr)
            interrupted += ended == code
            assert until(lambda n=name: not evaluators(runs / n), within=5)
            assert checkpoint_steps(runs / name / "checkpoints") == [3, 6]
        child = forks.start(verb, "train", *argv, output=tmp_path / name)
        assert child.wait() == 0, child.stderr
        found = end_state(runs / name)
        assert abs(found["score"] - expected["score"]) < TOLERANCE
        for key in ("weights", "raw weights", "moments"):
            assert_bitwise_equal({key: found[key]}, {key: expected[key]})
        assert list(scored(runs / name)) == [6]
        assert sorted(values(runs / name)) == sorted(values(runs / "whole"))
        assert len(list((runs / name).rglob(SCORE))) == 1
        assert evaluators(runs / name) == leftovers(runs / name) == []
        assert not (runs / name / "evaluations").exists()
    assert interrupted >= size(1, 8)


def test_killed_again_and_again_every_result_is_applied_once(
    forks, train_argv, runs, end_state, assert_bitwise_equal, tmp_path, size
):
    if not size(False, True):
        pytest.skip("at full size only")
    settings = ("trainer.max_epochs=30", "checkpoint.top_k=30")
    child = forks.start(verb, "train", *train_argv("whole", *settings), output=tmp_path / "whole")
    assert child.wait() == 0, child.stderr
    expected, truth = end_state(runs / "whole"), values(runs / "whole")
    rng, kills = np.random.default_rng(181), 0
    for number in range(5):
        name = f"again-{number}"
        for life in range(100):
            child = forks.start(verb, "train", *train_argv(name, APART, *settings), output=tmp_path / name)
            time.sleep(rng.uniform(0.5, 5.0) if life < 8 else 0)
            if life < 8:
                child.kill()
            code = child.wait()
            assert until(lambda n=name: not evaluators(runs / n), within=5)
            if code == 0:
                break
            assert code == -signal.SIGKILL, child.stderr
            kills += 1
        found = end_state(runs / name)
        for key in ("weights", "raw weights", "moments"):
            assert_bitwise_equal({key: found[key]}, {key: expected[key]})
        measured = values(runs / name)
        assert {place for place in truth if not place[0].startswith("val/")} <= measured.keys() <= truth.keys()
        assert max(abs(truth[place] - value) for place, value in measured.items()) < TOLERANCE
        by_step = {e.step: e.score for e in load_index(runs / name / "checkpoints") if e.validated}
        assert by_step == scored(runs / name)  # a row for every score, a score for every row
        assert 90 in by_step
        assert leftovers(runs / name) == []
    assert kills >= 8


class _StopInValidation(Callback):
    def on_validation_batch_start(self, trainer, *_):
        next(c for c in trainer.callbacks if isinstance(c, Checkpointing)).preempt("the test")


@pytest.mark.slow
def test_a_validation_that_was_cut_short_is_finished_before_the_others_are_done_apart(
    run_config, runs, end_state, assert_bitwise_equal
):
    run(run_config("whole", "trainer.max_epochs=1"))
    with pytest.raises(Preempted):
        run(run_config("moved", "trainer.max_epochs=1"), callbacks=[_StopInValidation()])
    run(run_config("moved", APART, "trainer.max_epochs=1"))
    assert_bitwise_equal(end_state(runs / "moved"), end_state(runs / "whole"))


def test_ranks_learn_of_a_result_together(forks, train_argv, runs, tmp_path, size):
    if not size(False, True):
        pytest.skip("at full size only")
    stopping = ["early_stopping.patience=1", "early_stopping.warmup_epochs=0", "optimizer.lr=1e-12"]
    argv = train_argv("ranks", APART, "trainer.devices=2", "trainer.max_epochs=200", *stopping)
    child = forks.start(verb, "train", *argv, output=tmp_path / "ranks")
    assert child.wait(240) == 0, child.stderr
    status = read_json(runs / "ranks/STATUS.json")
    assert "has not risen" in status["reason"]
    assert len(scored(runs / "ranks")) >= 2
    assert evaluators(runs / "ranks") == leftovers(runs / "ranks") == []
