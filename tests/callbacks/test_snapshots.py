"""Called at the right epochs, with the checkpoint already there."""

from pathlib import Path

import pytest
from tests.callbacks.toy import train

from segkit.callbacks.checkpointing import Checkpointing
from segkit.callbacks.position import Position
from segkit.callbacks.snapshots import Snapshots
from segkit.runs.manifest import checkpoint_steps


@pytest.mark.parametrize(("every", "epochs"), [(1, [1, 2, 3, 4]), (2, [2, 4]), (0, [])])
@pytest.mark.parametrize("at", ["validation", "epoch"])
def test_every_so_many_epochs(tmp_path: Path, every: int, epochs: list[int], at: str) -> None:
    seen: list[Position] = []
    snapshots = Snapshots(lambda _trainer, _module, where: seen.append(where), every_n_epochs=every, at=at)
    train(tmp_path, epochs=4, callbacks=(snapshots,))
    assert seen == [Position(n=8 * e, step=4 * e, epoch=e) for e in epochs]


def test_after_the_checkpoint_when_given_after_it(tmp_path: Path) -> None:
    seen: list[list[int]] = []
    checkpointing = Checkpointing(tmp_path, every_s=None)
    snapshots = Snapshots(lambda *_: seen.append(checkpoint_steps(tmp_path)))
    train(tmp_path, epochs=2, callbacks=(checkpointing,), checkpointing=snapshots)
    assert seen == [[4], [4, 8]]
