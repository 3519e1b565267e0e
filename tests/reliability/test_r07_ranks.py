"""R7: a rank that dies takes all with it within 15 s: one error block (rank, host, cases, cause), nothing promoted.

An exception, a segmentation fault or a kill, on either of two ranks, in a training step, in validation or in a
checkpoint. Afterwards no process and no port is left, and the newest checkpoint is that of before.
"""

import os
import socket
import time
from itertools import product
from pathlib import Path

import pytest

from segkit.configuration.entry import report
from segkit.errors import SegkitError
from segkit.runs.index import load_index
from segkit.workflows.train import run

pytestmark = pytest.mark.alone

WITHIN_S = 15.0
"""From the fault to the end of everything; the guarantee's own number."""
EVERYWHERE = list(product((0, 1), ("exception", "segfault", "kill"), ("step", "validation", "save")))
FAST = [(1, "segfault", "validation")]


def faulty(rank: int, how: str, where: str) -> list[str]:
    """Overrides that make a part fail; the first epoch is whole, the second one meets the fault."""
    if where == "save":
        return [
            "optimizer=custom",
            "optimizer._target_=tests.reliability.faulty.FaultyAdamW",
            "optimizer.lr=1e-3",
            f"optimizer.args.rank={rank}",
            f"optimizer.args.how={how}",
        ]
    part = {"rank": rank, "how": how, "where": where, "at": 5}
    words = [f"loss.args.{key}={value}" for key, value in part.items()]
    return ["loss=custom", "loss._target_=tests.reliability.faulty.FaultyLoss", *words]


def processes_of(marker: str) -> list[str]:
    """Command lines of living processes that name `marker`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if marker in line and state != "Z":
                found.append(line)
    return found


@pytest.mark.timeout(1800)
def test_one_rank_dies(run_config, nnunet_raw, size, capsys):
    root = nnunet_raw(cases=20, name="Dataset901_Many")  # enough tuning cases for two ranks
    for number, (rank, how, where) in enumerate(size(FAST, EVERYWHERE)):
        name = f"{number}-{rank}-{how}-{where}"
        config = run_config(name, "trainer.devices=2", *faulty(rank, how, where), data_root=root)
        with pytest.raises(SegkitError) as caught:
            run(config)
        ended = time.time()
        path = Path(config["paths"]["runs"]) / name

        report(caught.value)
        block = capsys.readouterr().err
        assert block.count(f"rank {rank} of 2 on {socket.gethostname()}") == 1, name
        assert block.count("Traceback") == (how == "exception"), name
        if how == "exception":
            assert "ArithmeticError: the faulty part has failed on purpose" in block
        else:
            assert {"segfault": "SIGSEGV", "kill": "SIGKILL"}[how] in block
        if where != "save":
            assert "phantom_" in caught.value.where, name  # the cases of the batch, or the case that was validated
        assert caught.value.exit_code == 1
        # nothing of the failed step or epoch became a checkpoint
        steps = [entry.step for entry in load_index(path / "checkpoints")]
        assert steps == {"step": [3], "validation": [], "save": []}[where], name
        # everything is gone, and was soon
        assert processes_of(str(path)) == [], name
        noted = max(file.stat().st_mtime for file in (path / "ranks").glob("rank-*.at"))
        assert ended - noted < WITHIN_S, name
