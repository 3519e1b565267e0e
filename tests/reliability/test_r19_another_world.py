"""R19: another number of ranks, workers or another path in the next life: allowed, and the same samples in order.

The n-th sample does not depend on how many draw it, so a run may change from one rank to two and back. Each case is
validated once. The numbers agree with those of one process to 1e-4: sums are taken in another order. That is tried
with SGD; AdamW's first steps are the sign of each gradient, so that a gradient near zero turns the last digit of a sum
into a whole step.
"""

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from segkit.data.pipeline import open_dataset, prepare_dataset
from segkit.data.splits import Roles
from segkit.errors import Preempted, UsageError
from segkit.evaluation import evaluate_case, summarise
from segkit.planning.plan import Plan
from segkit.runs.index import last, load_index
from segkit.workflows.loading import load
from segkit.workflows.train import run

pytestmark = pytest.mark.alone

STEPS = ("trainer.steps_per_epoch=10", "trainer.log_every_n_steps=1", "optimizer=sgd")
"""Twenty steps, each written down."""
TOLERANCE = 1e-4
COUNTED = 5e-3
"""Of what is counted in voxels of the likeliest class: two classes that tie to the seventh digit move one voxel."""


def curves(path: Path) -> dict[tuple[str, int], float]:
    """Every value that the journal holds, by key and n."""
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert Counter((row["key"], row["n"]) for row in rows).most_common(1)[0][1] == 1
    return {(row["key"], row["n"]): float(row["value"]) for row in rows}


def assert_close(one: Path, other: Path) -> None:
    expected, found = curves(one), curves(other)
    assert expected.keys() == found.keys()
    for (key, n), value in expected.items():
        smooth = key.startswith(("train/loss", "val/loss", "input/", "lr"))
        assert found[key, n] == pytest.approx(value, rel=0, abs=TOLERANCE if smooth else COUNTED), (key, n)


def test_two_ranks_train_as_one_process_does(run_config, nnunet_raw):
    """The same global batch: 20 steps, curves to 1e-4; the checkpoint's score is that of one process to 1e-6."""
    root = nnunet_raw(cases=20, name="Dataset901_Many")
    words = (*STEPS, "data.split.tuning=0.3", "data.max_cases=null")
    alone = run(run_config("alone", *words, data_root=root)).directory.path
    config = run_config("shared", *words, "trainer.devices=2", data_root=root)
    shared = run(config).directory.path
    assert sum(key == "train/loss" for key, _ in curves(alone)) == 20
    assert_close(alone, shared)
    assert not (shared / "ranks").exists()

    trained = load(shared, checkpoint="last", accelerator="cpu", trust=True)
    opened = open_dataset(config, roles=Roles.from_json(json.loads((shared / "split.json").read_text())))
    tuning = prepare_dataset(opened, Plan.from_json(json.loads((shared / "plan.json").read_text()))).tuning
    results = [evaluate_case(trained.predictor, case.load(), trained.settings) for case in tuning]
    entry = last(load_index(shared / "checkpoints"))
    assert len(tuning) >= 3  # both ranks had some, one more than the other
    assert sorted(entry.per_case) == sorted(result.case_id for result in results)  # each case once
    score = summarise(results, trained.plan.labels, trained.settings).score
    assert entry.score == pytest.approx(score, abs=1e-6)


@pytest.mark.slow
def test_a_run_changes_from_one_rank_to_two_and_back(run_config, stop_after):
    """Interrupted within an epoch; every (key, n) once, and the curves of the run that one process trained."""
    words = (*STEPS, "scheduler=constant", "trainer.ema_decay=0.9")
    config = run_config("changing", *words)
    with pytest.raises(Preempted):
        run(config, callbacks=[stop_after(4)])
    run(run_config("changing", *words, "trainer.devices=2", "data.workers=1", "trainer.max_epochs=1"))
    path = run(config).directory.path
    assert_close(run(run_config("whole", *words)).directory.path, path)


def test_more_ranks_than_samples_are_refused_before_anything_starts(run_config):
    with pytest.raises(UsageError, match=r"plan.batch_size=4") as refused:
        run(run_config("many", "trainer.devices=4", "plan.batch_size=2"))
    assert refused.value.exit_code == 2


@pytest.mark.slow
def test_two_nodes_of_torchrun_on_one_machine(run_config, tmp_path):
    """`torchrun` twice, as on two machines: the first rank does the starter's part, the others join it."""
    alone = run(run_config("alone", *STEPS)).directory.path
    config = run_config("nodes", *STEPS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    nodes, logs = [], [tmp_path / f"node-{node}.log" for node in range(2)]
    for node, log in enumerate(logs):
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
        command += [f"--node-rank={node}", "--master-addr=127.0.0.1", f"--master-port={port}", "-m", "segkit.train"]
        with log.open("wb") as output:
            words = [*command, *config["overrides"]]
            nodes.append(subprocess.Popen(words, env=environment, stdout=output, stderr=output))
    codes = [node.wait(timeout=240) for node in nodes]
    assert codes == [0, 0], "\n".join(log.read_text() for log in logs)
    assert_close(alone, Path(config["paths"]["runs"]) / "nodes")
    assert not (Path(config["paths"]["runs"]) / "nodes/ranks").exists()
