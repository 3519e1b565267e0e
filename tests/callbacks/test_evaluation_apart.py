"""Results that come in late: applied once, under the step they belong to, and judged in the order of epochs."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch import Callback
from tests.callbacks.evaluations import running, writing
from tests.callbacks.test_evaluation_queue import alive
from tests.callbacks.toy import BATCH, ToyModule, train

from segkit.callbacks.checkpointing import Checkpointing
from segkit.callbacks.early_stopping import EarlyStopping, Patience
from segkit.callbacks.evaluation_apart import EvaluationApart
from segkit.callbacks.evaluation_queue import EvaluationQueue
from segkit.errors import Preempted
from segkit.runs.checkpoints import newest_valid
from segkit.runs.evaluations import Evaluation
from segkit.runs.files import read_json
from segkit.runs.index import best, load_index
from segkit.runs.manifest import checkpoint_path, checkpoint_steps, digest_of, read_manifest
from segkit.runs.scores import SCORE

STEPS = 4  # of an epoch of the toy
SCORES = {4: 0.5, 8: 0.9, 12: 0.2, 16: 0.3, 20: 0.4}


class Rows:
    """A journal in memory, which outlives its lives."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def metrics(self, values, *, n, step, epoch):
        self.rows += [SimpleNamespace(n=n, step=step, epoch=epoch, key=k, value=v) for k, v in values.items()]

    def of(self, key: str) -> list[tuple[int, int, int, float]]:
        return [(row.n, row.step, row.epoch, row.value) for row in self.rows if row.key == key]


class OneByOne(Callback):
    """Begins no epoch before the evaluation at work has ended: so that none is left out."""

    def __init__(self, queue: EvaluationQueue) -> None:
        self.queue = queue

    def on_train_epoch_start(self, *_: object) -> None:
        if self.queue._process is not None:
            self.queue._process.wait(60)


@pytest.fixture
def life(tmp_path):
    """Factory: one life of a toy run with evaluations apart; returns its callbacks."""
    root, folder, journal = tmp_path / "checkpoints", tmp_path / "evaluations", Rows()

    def make(
        *,
        epochs=3,
        scores=SCORES,
        first="",
        command=None,
        patience=None,
        cooldown=0,
        one_by_one=True,
        module=None,
        more=(),
        **settings,
    ):
        checkpointing = Checkpointing(root, every_s=None, **settings)
        queue = EvaluationQueue(folder, command or writing(root, folder, scores, first=first), timeout_s=60.0)
        apart = EvaluationApart(
            checkpointing, queue, journal, measured=lambda: journal.rows, every_n_epochs=1, steps_per_epoch=STEPS
        )
        stopping = EarlyStopping(Patience(patience or 99), cooldown_epochs=cooldown, scores=apart.scores)
        made = SimpleNamespace(apart=apart, queue=queue, stopping=stopping, journal=journal, root=root, trainer=None)
        pause = (OneByOne(queue),) if one_by_one else ()
        callbacks = (*pause, stopping, *more, checkpointing)
        resume = newest_valid(root)
        _, made.trainer = train(
            root,
            epochs=epochs,
            resume=resume,
            callbacks=callbacks,
            checkpointing=apart,
            module=module,
            limit_val_batches=0,
        )
        return made

    make.root, make.journal, make.folder = root, journal, folder
    return make


def test_results_lie_under_the_step_they_belong_to(life):
    made = life(top_k=2)
    expected = [(STEPS * BATCH * epoch, STEPS * epoch, epoch, SCORES[STEPS * epoch]) for epoch in (1, 2, 3)]
    assert made.journal.of("val/score") == expected
    assert len(made.journal.of("val/loss")) == 3
    entries = load_index(made.root)
    assert {e.step: (e.score, e.validated_n == e.n) for e in entries} == {
        4: (0.5, True),
        8: (0.9, True),
        12: (0.2, True),
    }
    assert best(entries).step == 8
    assert read_json(made.root / "best.json")["step"] == 8
    assert read_json(made.root / "best.json")["score"] == 0.9
    assert not life.folder.exists()


def test_a_score_goes_with_its_checkpoint(life):
    made = life(epochs=5)
    assert checkpoint_steps(made.root) == [8, 16, 20]
    assert len(list(made.root.rglob(SCORE))) == 3
    assert [path.name for path in made.root.iterdir() if path.name.startswith(".")] == []


def test_a_checkpoint_that_is_read_stays(life, caplog):
    made = life(epochs=5, one_by_one=False, first="import time; time.sleep(0.5)\n")
    assert [step for _, step, _, _ in made.journal.of("val/score")] == [4, 20]
    assert "The evaluation of step 8 is left out" in caplog.text
    assert "failed" not in caplog.text
    assert checkpoint_steps(made.root) == [4, 16, 20]  # 4 is the best of those that were scored


def test_nothing_is_done_twice_in_another_life(life):
    life(epochs=2)
    told = list(life.journal.rows)
    life(epochs=2, command=running("raise SystemExit(1)"))
    assert life.journal.rows == told


def test_what_a_killed_life_left_is_done_again(life, caplog):
    life(epochs=2, command=running("raise SystemExit(1)"))
    assert life.journal.rows == []
    made = life(epochs=2)
    assert [step for _, step, _, _ in made.journal.of("val/score")] == [4, 8]
    assert [e.score for e in load_index(made.root)] == [0.5, 0.9]


def test_a_result_that_a_killed_life_had_not_come_to_is_applied_as_it_is(life):
    made = life(epochs=2)
    told = list(life.journal.rows)
    folder = checkpoint_path(made.root, 8)
    (folder / SCORE).unlink()  # killed between the rows and the score
    life.folder.mkdir()
    Evaluation(8, digest_of(read_manifest(folder)), 0.9, {}, {"val/score": 0.9, "val/loss": 1.0}).write(life.folder)
    Evaluation(4, "0", 0.1, {}, {"val/score": 0.1}).write(life.folder)  # killed after the score
    (life.folder / "step-00000008.log").touch()
    life(epochs=2, command=running("raise SystemExit(1)"))
    assert life.journal.rows == told
    assert [e.score for e in load_index(made.root)] == [0.5, 0.9]
    assert not life.folder.exists()


def test_a_result_of_another_checkpoint_of_the_name_is_not_taken(life, caplog):
    made = life(epochs=2)
    (checkpoint_path(made.root, 8) / SCORE).unlink()
    life.folder.mkdir()
    Evaluation(8, "0" * 64, 0.99, {}, {"val/score": 0.99}).write(life.folder)
    life(epochs=2)
    assert "another checkpoint of this name" in caplog.text
    assert [e.score for e in load_index(made.root)] == [0.5, 0.9]


def test_a_full_disk_costs_the_score_and_not_the_training(life, caplog):
    def full():
        if armed:
            raise OSError(28, "No space left on device")

    armed: list[int] = []

    class Arm(Callback):
        def on_train_end(self, *_: object) -> None:
            armed.append(1)

    made = life(epochs=1, before_save=full, more=(Arm(),))
    assert made.trainer.current_epoch == 1
    assert "The score of step 4 could not be kept" in caplog.text
    assert load_index(made.root)[0].score is None
    armed.clear()
    made = life(epochs=1, before_save=full)
    assert load_index(made.root)[0].score == 0.5
    assert len(made.journal.of("val/score")) == 1


def test_late_scores_are_judged_once_and_stop_the_training(life):
    made = life(epochs=9, scores={4: 0.5, 8: 0.4, 12: 0.3, 16: 0.2, 20: 0.2, 24: 0.2}, patience=2)
    # The result of epoch 3 is there at the end of epoch 4.
    assert made.trainer.current_epoch == 4
    assert (made.stopping.observed.best_epoch, made.stopping.observed.epoch) == (1, 3)
    again = life(epochs=9, patience=2, command=running("raise SystemExit(1)"))
    assert again.trainer.global_step == 16  # stopped is stopped, with the score that came after the checkpoint
    assert again.stopping.observed.epoch == 4
    larger = life(epochs=6, patience=9, scores=SCORES | {24: 0.1})
    assert larger.trainer.current_epoch == 6


class Annealing(ToyModule):
    def anneal(self, steps: int) -> None:
        self.annealed.append(steps)


def test_a_cooldown_takes_its_epochs_from_where_it_was_begun(life):
    module = Annealing()
    falling = {STEPS * epoch: 1 / epoch for epoch in range(1, 12)}
    made = life(epochs=11, scores=falling, patience=2, module=module, cooldown=2)
    assert made.stopping.cooling_since == 4
    assert module.annealed == [2 * STEPS]
    assert made.trainer.current_epoch == 6
    again = life(epochs=11, scores=falling, patience=2, module=Annealing(), cooldown=2)
    assert again.trainer.global_step == 6 * STEPS


def test_a_signal_while_waiting_ends_the_run_and_the_process(life):
    class Ask(Callback):
        def on_train_end(self, trainer, *_):
            apart = next(c for c in trainer.callbacks if isinstance(c, EvaluationApart))
            pids.append(apart.queue._process.pid)
            apart.checkpointing.stop.ask("signal SIGTERM")

    pids: list[int] = []
    with pytest.raises(Preempted, match="while it waited for its last evaluation"):
        life(epochs=1, command=running("import time; time.sleep(600)"), more=(Ask(),))
    assert not alive(pids[0])
    assert newest_valid(life.root) is not None
    made = life(epochs=1)
    assert [step for _, step, _, _ in made.journal.of("val/score")] == [4]


def test_an_error_in_the_training_ends_the_process(life):
    class Fail(Callback):
        def on_train_epoch_start(self, trainer, *_):
            if trainer.current_epoch == 1:
                apart = next(c for c in trainer.callbacks if isinstance(c, EvaluationApart))
                pids.append(apart.queue._process.pid)
                raise ArithmeticError("on purpose")

    pids: list[int] = []
    with pytest.raises(ArithmeticError):
        life(epochs=2, one_by_one=False, command=running("import time; time.sleep(600)"), more=(Fail(),))
    assert not alive(pids[0])


def test_the_training_never_waits_but_at_its_end(life):
    class Clock(Callback):
        def on_train_end(self, trainer, *_):
            apart = next(c for c in trainer.callbacks if isinstance(c, EvaluationApart))
            seen.append((apart.queue.running, apart.queue.waiting))

    seen: list[tuple[int | None, int | None]] = []
    began = time.monotonic()
    life(epochs=4, one_by_one=False, first="import time; time.sleep(1.0)\n", more=(Clock(),))
    assert seen == [(4, 16)]  # all four epochs were trained while the first was evaluated
    assert time.monotonic() - began > 2.0
