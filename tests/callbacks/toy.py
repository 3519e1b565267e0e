"""A small training with everything that a resume must bring back: dropout, order of the data, schedule, moments."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from segkit.callbacks.checkpointing import Checkpointing, DirectoryCheckpointIO
from segkit.callbacks.consumption import Consumption
from segkit.callbacks.quiet import quiet
from segkit.types import Batch, Target

BATCH = 2


class Numbers(Dataset[int]):
    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, n: int) -> int:
        return n


def collate(numbers: list[int]) -> Batch:
    """Sample n is a pure function of n."""
    x = torch.stack([torch.randn(3, generator=torch.Generator().manual_seed(n)) for n in numbers])
    target = Target(label=torch.zeros(len(numbers), 1, dtype=torch.int64))
    return Batch(x, target, None, tuple(map(str, numbers)), tuple(numbers))


class FromN(Sampler[int]):
    """Runs from the datamodule's n to the end of its epoch; its length is the whole epoch's."""

    def __init__(self, datamodule: "ToyData") -> None:
        self.datamodule = datamodule

    def __iter__(self) -> Iterator[int]:
        n, samples = self.datamodule.n, self.datamodule.batches * BATCH
        return iter(range(n, n - n % samples + samples))

    def __len__(self) -> int:
        return self.datamodule.batches * BATCH


class ToyData(LightningDataModule):
    def __init__(self, batches: int = 4) -> None:
        super().__init__()
        self.batches, self.n = batches, 0

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Numbers(), batch_size=BATCH, sampler=FromN(self), collate_fn=collate)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader([collate([10**5]), collate([10**5 + 1])], batch_size=None)

    def consumed(self, batch: Batch) -> None:
        self.n += len(batch.n)

    def state_dict(self) -> dict[str, int]:
        return {"n": self.n}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.n = state_dict["n"]


class ToyModule(LightningModule):
    """Dropout keyed by the step, AdamW, cosine schedule by step; the score is minus the validation loss."""

    def __init__(self, total_steps: int = 100, scores: list[float] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 1))
        self.total_steps, self.scores = total_steps, scores
        self.last_per_case: dict[str, float] = {}
        self.annealed: list[int] = []

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        torch.manual_seed(batch.n[0])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = nn.functional.mse_loss(self.net(batch.image), batch.image.sum(1, keepdim=True))
        self.log("train/loss", loss, on_step=True, on_epoch=False, batch_size=1)
        return loss

    def on_validation_epoch_start(self) -> None:
        self.losses: list[float] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.losses.append(float(nn.functional.mse_loss(self.net(batch.image), batch.image.sum(1, keepdim=True))))

    def on_validation_epoch_end(self) -> None:
        self.last_per_case = {f"case{i}": -loss for i, loss in enumerate(self.losses)}
        score = -sum(self.losses) / len(self.losses)
        if self.scores is not None:
            score = self.scores[self.trainer.current_epoch]
        self.log("val/score", score, batch_size=1)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Killed(BaseException):
    """Stands in for a kill: nothing of ours runs after it."""


class KillAfter(Callback):
    """Asks for a checkpoint at `save_step` and dies at `die_step` (both counted in optimizer steps)."""

    def __init__(self, checkpointing: Checkpointing, *, save_step: int | None, die_step: int) -> None:
        self.checkpointing, self.save_step, self.die_step = checkpointing, save_step, die_step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.save_step:
            self.checkpointing.save_now, self.save_step = True, None

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.die_step:
            raise Killed


def train(
    root: Path,
    *,
    epochs: int = 2,
    resume: Path | None = None,
    callbacks: tuple[Callback, ...] = (),
    module: ToyModule | None = None,
    checkpointing: Checkpointing | None = None,
    data: ToyData | None = None,
    plugins: tuple[Any, ...] = (),
    **trainer_settings: Any,
) -> tuple[ToyModule, Trainer]:
    """One life of a run; returns the module and the trainer."""
    quiet()
    module = module or ToyModule()
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        plugins=[DirectoryCheckpointIO(), *plugins],
        callbacks=[Consumption(), *callbacks, checkpointing or Checkpointing(root, every_s=None)],
        **trainer_settings,
    )
    trainer.fit(module, datamodule=data or ToyData(), ckpt_path=None if resume is None else str(resume))
    return module, trainer
