"""R12: of eight starts of one run at once, one trains; the others leave at once with 73 and name the one that does.

A lock whose holder is dead, of this boot or an earlier one, is taken over with a warning.
"""

import json
import re
import socket
from dataclasses import asdict
from pathlib import Path

import pytest
from tests.reliability.fork_server import verb
from tests.reliability.processes import until

from segkit.runs.lock import Holder

pytestmark = pytest.mark.alone

STARTS = 8


def train_when_told(go: Path, *argv: str) -> int:
    """`train`, which holds the lock but begins only when a file appears."""
    from segkit.workflows import train

    begin = train._Life.train

    def later(self, callbacks):
        assert until(go.exists, within=60)
        return begin(self, callbacks)

    train._Life.train = later
    return verb("train", *argv)


def test_eight_starts_at_once(forks, train_argv, tmp_path, size):
    for number in range(size(1, 20)):
        go, argv = tmp_path / f"go-{number}", train_argv(f"contended-{number}", "trainer.max_epochs=1")
        outputs = [tmp_path / f"contended-{number}" / str(k) for k in range(STARTS)]
        children = [forks.start(train_when_told, go, *argv, output=output) for output in outputs]
        # The others leave while the holder still holds: none of them waits for it.
        assert until(lambda c=children: sum(child.running() for child in c) == 1, within=60)
        (holder,) = [child for child in children if child.running()]
        go.touch()
        assert holder.wait() == 0, holder.stderr
        for child in children:
            if child is not holder:
                assert child.wait() == 73
                named = re.search(r"held by process (\d+) on (\S+) since (\S+)", child.stderr)
                assert named, child.stderr
                assert (int(named[1]), named[2]) == (holder.pid, socket.gethostname())
                assert named[3].startswith("20")
        assert (tmp_path / "runs" / f"contended-{number}" / "run.lock").read_text() == ""


@pytest.mark.parametrize("boot_id", ["", "another"])
def test_a_dead_holders_lock_is_taken_over_with_a_warning(forks, train_argv, tmp_path, boot_id):
    argv = train_argv("stale", "trainer.max_epochs=1")
    dead = forks.start(verb, "train", "--help", output=tmp_path / "dead")
    assert dead.wait() == 0
    me = Holder.me()
    # Of an earlier boot the process id says nothing: it may be anybody's now, for instance this one's.
    stale = Holder(me.host, me.pid if boot_id else dead.pid, boot_id or me.boot_id, "2020-01-01T00:00:00+00:00")
    path = tmp_path / "runs" / "stale" / "run.lock"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(asdict(stale)))
    child = forks.start(verb, "train", *argv, output=tmp_path / "stale")
    assert child.wait() == 0, child.stderr
    assert f"left without an end by process {stale.pid} on {me.host} since 2020" in child.stderr
