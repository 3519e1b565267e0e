"""What makes training fast changes no result: against a loop of plain torch, and against float32."""

import copy
import json
import math
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from segkit.callbacks.nonfinite_guard import NonFiniteGuard
from segkit.configuration import compose
from segkit.workflows.train import run

STEPS, CLIP = 20, 0.9
"""`CLIP` is below the first gradients' norms and above the last ones': both branches are taken."""
PLAIN: dict[str, Any] = {
    "adamw": lambda weights: torch.optim.AdamW(
        weights, lr=2e-3, eps=1e-3, weight_decay=1e-2, foreach=False, fused=False
    ),
    "sgd": lambda weights: torch.optim.SGD(
        weights, lr=5e-3, momentum=0.99, nesterov=True, weight_decay=3e-5, foreach=False, fused=False
    ),
}
RATE = {"adamw": 2e-3, "sgd": 5e-3}
"""Adam's epsilon is large, so that it does not make whole steps of a gradient that is rounding alone, such as that of a
bias which the normalisation after it takes out again."""


class Beginning(Callback):
    """Keeps what training begins with, and the loss of each step; has the host learn late of what the device does."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Without kinks: where a rounding lifts a value over one, the gradient jumps, in any two loops."""
        for parent in list(pl_module.network.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.LeakyReLU):
                    setattr(parent, name, nn.SiLU())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        next(each for each in trainer.callbacks if isinstance(each, NonFiniteGuard)).late = True
        assert all(group["fused"] for group in trainer.optimizers[0].param_groups)
        self.module, self.data = pl_module, trainer.datamodule
        self.network: nn.Module = copy.deepcopy(pl_module.network)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        self.losses.append(outputs["loss"].detach().clone())


@dataclass
class PlainLoop:
    """The same training in plain torch: contiguous memory, parameter by parameter, torch's clipping, the cosine."""

    network: nn.Module
    losses: list[float]
    norms: list[float]


def plain_loop(beginning: Beginning, optimizer_name: str) -> PlainLoop:
    network = beginning.network.train()
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()
    optimizer, rate = PLAIN[optimizer_name](network.parameters()), RATE[optimizer_name]
    done = PlainLoop(network, [], [])
    beginning.data.n = 0
    warmup = round(0.05 * STEPS)
    for step, fetched in enumerate(islice(beginning.data.train_dataloader(), STEPS)):
        batch = beginning.data.on_after_batch_transfer(fetched, 0)
        progress = (step - warmup) / (STEPS - warmup)
        share = (step + 1) / (warmup + 1) if step < warmup else 0.5 * (1 + math.cos(math.pi * progress))
        optimizer.param_groups[0]["lr"] = rate * share
        optimizer.zero_grad()
        loss = beginning.module.loss(network(batch.image), batch.target)
        loss.backward()
        done.norms.append(float(nn.utils.clip_grad_norm_(network.parameters(), CLIP)))
        optimizer.step()
        done.losses.append(float(loss.detach()))
        beginning.data.consumed(batch)
    return done


@pytest.mark.parametrize(
    ("optimizer", "channels_last"),
    [
        ("adamw", False),
        pytest.param("adamw", True, marks=pytest.mark.slow),
        pytest.param("sgd", False, marks=pytest.mark.slow),
        pytest.param("sgd", True, marks=pytest.mark.slow),
    ],
)
def test_the_fast_loop_is_the_plain_loop(run_config, optimizer: str, channels_last: bool) -> None:
    """A fused optimizer, one norm for the guard and the clipping, a host that learns late, any memory format."""
    beginning = Beginning()
    words = (
        f"trainer.steps_per_epoch={STEPS}",
        "trainer.max_epochs=1",
        f"optimizer={optimizer}",
        f"optimizer.lr={RATE[optimizer]}",
        f"trainer.gradient_clip={CLIP}",
        f"plan.channels_last={str(channels_last).lower()}",
        "scheduler=cosine",
        *(["optimizer.eps=1e-3"] if optimizer == "adamw" else []),
        "augmentation=light",
    )
    run(run_config("fast", *words), callbacks=[beginning])
    plain = plain_loop(beginning, optimizer)
    assert min(plain.norms) < CLIP < max(plain.norms)
    assert plain.losses[0] - plain.losses[-1] > 0.1
    assert [float(loss) for loss in beginning.losses] == pytest.approx(plain.losses, rel=1e-5, abs=1e-5)
    for ours, theirs in zip(beginning.module.network.parameters(), plain.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_bfloat16_ends_within_the_spread_of_the_seeds(tmp_path: Path) -> None:
    """On the sample data: bfloat16 moves the losses and the score by less than another seed does."""

    def ends(seed: int, precision: str) -> dict[str, float]:
        words = [
            "debug=fast", "data.max_cases=null", "trainer.max_epochs=2", "trainer.steps_per_epoch=20",
            "trainer.accelerator=cpu", "trainer.threads=1", "overlays.cases=0", "validation.every_n_epochs=2",
            f"trainer.precision={precision}", f"seed={seed}", f"run_name=s{seed}-{precision}",
            f"paths.runs={tmp_path / 'runs'}",
        ]  # fmt: skip
        folder = run({**compose("train", words), "overrides": words}).directory.path
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        last = {row["key"]: row["value"] for row in rows}
        return {key: last[key] for key in ("train/loss_epoch", "val/loss", "val/score")}

    seeds = [ends(seed, "32-true") for seed in range(4)]
    half = [ends(seed, "bf16-mixed") for seed in range(2)]
    for key in seeds[0]:
        values = [each[key] for each in seeds]
        spread = max(values) - min(values)
        assert spread > 0
        for seed, each in enumerate(half):
            assert abs(each[key] - seeds[seed][key]) < spread, key
