"""The size of a checkpoint is foreseen, and where three do not fit nothing is begun."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from segkit.errors import ExitCode, StorageError
from segkit.runs import preflight
from segkit.runs.checkpoints import write_checkpoint
from segkit.runs.manifest import Entry, checkpoint_path
from segkit.runs.preflight import checkpoint_bytes, moments, require_room

ADAMW = {"_target_": "torch.optim.AdamW", "lr": 1e-3}
SGD = {"_target_": "torch.optim.SGD", "lr": 1e-3, "momentum": 0.9}


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("settings", [ADAMW, {**ADAMW, "amsgrad": True}, SGD, {**SGD, "momentum": 0.0}], ids=str)
def test_the_size_is_that_of_the_checkpoint(tmp_path: Path, settings: dict, averaged: bool) -> None:
    network = nn.Sequential(nn.Linear(300, 300), nn.BatchNorm1d(300), nn.Linear(300, 200))
    network[2].weight.requires_grad_(False)
    kind = torch.optim.AdamW if "AdamW" in settings["_target_"] else torch.optim.SGD
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = kind(trained, **{key: value for key, value in settings.items() if key != "_target_"})
    network(torch.randn(4, 300)).sum().backward()
    optimizer.step()
    weights = dict(network.state_dict())
    path = write_checkpoint(
        checkpoint_path(tmp_path, 1),
        Entry(step=1, n=1, epoch=1),
        model=weights,
        training=weights if averaged else None,
        optimizer={"optimizer_states": [optimizer.state_dict()]},
        state={"epoch": 1},
    )
    real = sum(file.stat().st_size for file in path.iterdir())
    foreseen = checkpoint_bytes(network, optimizer=settings, averaged=averaged)
    assert real <= foreseen <= 1.2 * real


def test_an_unknown_optimizer_counts_as_the_larger_of_the_usual_ones() -> None:
    assert moments({"_target_": "theirs.Optimizer", "args": {"beta": 1}}) == 2
    assert moments({"_target_": "theirs.SGD", "args": {"momentum": 0.9}}) == 1


@pytest.mark.parametrize(
    ("free", "held", "enough"),
    [(300, 0, True), (299, 0, False), (100, 200, True), (99, 900, False), (200, 99, False), (0, 0, False)],
)
def test_three_must_fit_with_those_that_are_there(
    tmp_path: Path, monkeypatch, free: int, held: int, enough: bool
) -> None:
    (tmp_path / "step-00000001").mkdir()
    (tmp_path / "step-00000001" / "file").write_bytes(bytes(held))
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    if enough:
        require_room(tmp_path, checkpoint=100)
        return
    with pytest.raises(StorageError, match="too little room") as refused:
        require_room(tmp_path, checkpoint=100)
    assert refused.value.exit_code == ExitCode.IO
    assert str(tmp_path) in str(refused.value)
