"""R21: the best model never gets worse by resuming; ties and NaN win nothing; its score can be computed again.

Also where the run's folder was copied or moved to another place and goes on there.
"""

import math
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from tests.callbacks.toy import KillAfter, Killed, ToyModule, train

from segkit.callbacks.checkpointing import Checkpointing
from segkit.errors import Preempted
from segkit.runs.checkpoints import newest_valid
from segkit.runs.files import read_json
from segkit.runs.index import best, load_index
from segkit.runs.manifest import checkpoint_path, verify_checkpoint
from segkit.tracking.journal import read_rows
from segkit.workflows.train import run

NAN = math.nan


def best_of(root: Path) -> tuple[int, float]:
    """Step and score that best.json names, of a checkpoint that is whole."""
    pointer = read_json(root / "best.json")
    entry = verify_checkpoint(checkpoint_path(root, pointer["step"]))
    assert entry.score == pytest.approx(pointer["score"])
    return entry.step, entry.score


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.7, 0.6, 0.5, 0.65, 0.2, 0.1], 1),
        ([0.1, 0.7, 0.7, 0.7, 0.7, 0.7], 2),
        ([0.3, NAN, NAN, NAN, NAN, NAN], 1),
        ([NAN, NAN, 0.1, NAN, 0.05, NAN], 3),
        ([-0.5, -0.7, -0.5, -0.9, -0.6, NAN], 1),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 6),
    ],
    ids=["falling", "ties", "NaN after", "NaN before", "negative", "rising"],
)
@pytest.mark.parametrize("moved", [False, True], ids=["in place", "moved before each life"])
def test_the_best_of_many_lives_is_the_best_of_all_epochs(
    tmp_path: Path, scores: list[float], expected: int, moved: bool
) -> None:
    """A kill within every epoch, so that each life ends with less than the one before it had seen."""
    root = tmp_path / "life-0"
    reached: list[float] = []
    for life, die in enumerate([5, 10, 14, 17, 23, 99]):
        if moved and life:
            root = Path(shutil.move(root, tmp_path / f"life-{life}"))
        resume = newest_valid(root) if root.exists() else None
        checkpointing = Checkpointing(root, every_s=None)
        killer = KillAfter(checkpointing, save_step=None, die_step=die)
        try:
            train(
                root,
                epochs=6,
                resume=resume,
                callbacks=(killer,),
                module=ToyModule(scores=scores),
                checkpointing=checkpointing,
            )
        except Killed:
            assert die < 99
        if (root / "best.json").exists():
            reached.append(best_of(root)[1])
    assert all(later >= earlier for earlier, later in pairwise(reached))
    assert best_of(root) == (4 * expected, pytest.approx(scores[expected - 1]))


def test_a_run_moved_elsewhere_goes_on_with_its_best(
    run_config, end_state, assert_bitwise_equal, stop_after, tmp_path: Path
) -> None:
    expected = run(run_config("whole")).directory
    config = run_config("moved")
    with pytest.raises(Preempted):
        run(config, callbacks=[stop_after(4)])
    before = best(load_index(tmp_path / "runs" / "moved" / "checkpoints"))
    elsewhere = tmp_path / "another drive"
    elsewhere.mkdir()
    shutil.move(tmp_path / "runs" / "moved", elsewhere / "moved")
    directory = run(run_config("moved", f"paths.runs={elsewhere}")).directory
    assert directory.path == elsewhere / "moved"
    after = best(load_index(directory.checkpoints))
    assert before is not None
    assert after is not None
    assert after.score >= before.score
    assert_bitwise_equal(end_state(expected.path), end_state(directory.path))
    assert not (tmp_path / "runs" / "moved").exists()


def test_the_score_of_a_checkpoint_follows_from_what_is_stored_beside_it(run_config) -> None:
    """Per case: both classes are in every phantom, so the mean over cases is the mean over classes and cases."""
    trained = run(run_config("parts", "data.split.tuning=equal"))
    root = trained.directory.checkpoints
    weights = trained.settings.composite.weights
    for entry in load_index(root):
        assert len(entry.per_case) > 1
        assert entry.score == pytest.approx(sum(entry.per_case.values()) / len(entry.per_case), abs=1e-6)
        row = {r.key: r.value for r in read_rows(trained.directory.metrics) if r.n == entry.n}
        assert row["val/score"] == pytest.approx(entry.score, abs=1e-6)
        terms = {"f1": row["val/dice"], **{term: row[f"val/{term}"] for term in ("iou", "recall", "precision")}}
        assert entry.score == pytest.approx(sum(weights[term] * value for term, value in terms.items()), abs=1e-6)
