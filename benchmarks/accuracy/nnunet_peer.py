"""nnU-Net's own classes, trained for a fixed number of steps and scored on whole images.

    /path/to/peers/bin/python -m benchmarks.accuracy.nnunet_peer --data ... --split ... --mode same_chance --steps 500 \
        --seed 0 --work /tmp/nnunet --out /tmp/nnunet/run

Its fingerprint, planner, preprocessor, loaders, augmentation, loss, deep supervision, `train_step`, sliding window and
export are used as they are. Two modes:

`same_chance`: the network and batch of segkit's small plan, AdamW, linear warm-up and a cosine that ends at the last
step. Its 50 validation batches an epoch are left out, since nothing is selected: that time goes to training.

`default`: its own plan, SGD and the poly schedule over 1000 epochs, with its validation batches, stopped where the
steps end.

nnU-Net's command line looks its trainer up by importing every trainer it has; one of them needs torchvision, which
has no build beside a CPU-only torch of this version. The trainer's class is therefore built here.

Run with the interpreter of an environment that has nnunetv2; segkit is not imported.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprint_dataset,
    plan_experiment_dataset,
    preprocess_dataset,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as trainer_module
from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.accuracy.schedule import cosine_multiplier, steps_within
from benchmarks.accuracy.scoring import score_folder, write_table

Mode = Literal["same_chance", "default"]
_PLANS, _CONFIGURATION, _FOLD = "nnUNetPlans", "3d_fullres", 0
_SMALL_FEATURES, _SMALL_BATCH = [16, 32, 64, 128], 2
RATE, _DECAY = 2e-3, 1e-2
_WARM_UP_STEPS, _TIMED_STEPS = 3, 15


@dataclass(frozen=True)
class Timings:
    """Where the seconds went; what was not done is None.

    Args:
        preparing: Fingerprint, plan and preprocessing when they were done, maybe by an earlier run.
        start_up: From the birth of the process to the first step, without preparing and without timing.
        per_step: Median of the steps, in seconds.
        training: All steps.
        predicting: Both predictions of the test cases.
        total: From the birth of the process to now, without preparing and without timing.
    """

    preparing: float
    start_up: float
    per_step: float
    training: float
    predicting: float | None = None
    total: float | None = None


@dataclass(frozen=True)
class Prepared:
    """nnU-Net's preprocessed training cases.

    Args:
        plans: Its plans.json.
        dataset: Its dataset.json.
        seconds: What preparing took when it was done.
        spent_now: What of it this process spent.
    """

    plans: dict[str, Any]
    dataset: dict[str, Any]
    seconds: float
    spent_now: float


@dataclass
class _Clock:
    """Seconds of this process that are not charged: preparing and timing."""

    uncharged: float = 0.0

    def age(self) -> float:
        """Seconds since the birth of the process."""
        ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")

    def charged(self) -> float:
        """Seconds since the birth of the process that count."""
        return self.age() - self.uncharged


@dataclass
class _Steps:
    """What one training did."""

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


class SeededAugmenter(trainer_module.NonDetMultiThreadedAugmenter):  # type: ignore[misc]
    """nnU-Net's loader processes with seeds; it starts them unseeded. With several, batches still race."""

    seed = 0

    def __init__(self, *, num_processes: int, **options: object) -> None:
        seeds = [1000 * self.seed + k for k in range(num_processes)]
        super().__init__(**(options | {"num_processes": num_processes, "seeds": seeds}))


class SameChanceTrainer(trainer_module.nnUNetTrainer):  # type: ignore[misc]
    """nnU-Net's trainer with AdamW and a schedule that ends at the last step."""

    total_steps = 1
    rate = RATE

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, LambdaLR]:
        """AdamW and a warm-up with a cosine, one multiplier a step."""
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=self.rate, weight_decay=_DECAY)
        return optimizer, LambdaLR(optimizer, cosine_multiplier(self.total_steps))


def small_plan(plans: dict[str, Any]) -> dict[str, Any]:
    """nnU-Net's plans with the network and batch of segkit's small plan; its patch is the same for these data."""
    plans = json.loads(json.dumps(plans))
    configuration = plans["configurations"][_CONFIGURATION]
    stages = len(_SMALL_FEATURES)
    network = configuration["architecture"]["arch_kwargs"]
    network |= {
        "n_stages": stages,
        "features_per_stage": _SMALL_FEATURES,
        "kernel_sizes": [[3, 3, 3]] * stages,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
    }
    configuration["batch_size"] = _SMALL_BATCH
    return plans


def prepare(data: Path, train: Sequence[str], validation: Sequence[str], *, work: Path) -> Prepared:
    """Let nnU-Net plan and preprocess the training cases, or find that done.

    Only the training cases are shown to it: the test cases have no part in its fingerprint and plan.

    Args:
        data: nnU-Net raw folder.
        train: Case ids it trains on.
        validation: Those of them that its pseudo Dice is computed on; nothing is selected by it.
        work: Folder of prepared data, one sub-folder a set of training cases.
    """
    key = hashlib.sha256(json.dumps([str(data.resolve()), sorted(train)]).encode()).hexdigest()[:12]
    folder, name = work / key, data.name
    raw, preprocessed = folder / "raw" / name, folder / "preprocessed" / name
    os.environ.update(nnUNet_raw=str(raw.parent), nnUNet_preprocessed=str(preprocessed.parent))
    done, spent = folder / "prepared.json", 0.0
    if not done.is_file():
        began = time.perf_counter()
        shutil.rmtree(folder, ignore_errors=True)
        _link_cases(data, raw, train)
        preprocessed.mkdir(parents=True)
        number = convert_dataset_name_to_id(name)
        extract_fingerprint_dataset(number, num_processes=2, show_progress_bar=False)
        plan_experiment_dataset(number)
        preprocess_dataset(number, _PLANS, (_CONFIGURATION,), (2,), show_progress_bar=False)
        spent = time.perf_counter() - began
        done.write_text(json.dumps({"seconds": spent}))
    splits = preprocessed / "splits_final.json"
    splits.write_text(json.dumps([{"train": sorted(train), "val": sorted(validation)}]))
    return Prepared(
        plans=json.loads((preprocessed / f"{_PLANS}.json").read_text()),
        dataset=json.loads((preprocessed / "dataset.json").read_text()),
        seconds=json.loads(done.read_text())["seconds"],
        spent_now=spent,
    )


def _link_cases(data: Path, raw: Path, train: Sequence[str]) -> None:
    """A raw folder that holds the training cases only, as links."""
    description = json.loads((data / "dataset.json").read_text())
    ending, channels = description["file_ending"], len(description["channel_names"])
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    for case in train:
        (raw / "labelsTr" / f"{case}{ending}").symlink_to((data / "labelsTr" / f"{case}{ending}").resolve())
        for channel in range(channels):
            file = f"{case}_{channel:04d}{ending}"
            (raw / "imagesTr" / file).symlink_to((data / "imagesTr" / file).resolve())
    (raw / "dataset.json").write_text(json.dumps(description | {"numTraining": len(train)}))


@contextmanager
def started(
    prepared: Prepared, *, mode: Mode, steps: int, seed: int, results: Path
) -> Iterator[trainer_module.nnUNetTrainer]:
    """A trainer whose loaders run; they are stopped at the end.

    Args:
        prepared: Plans and data.
        mode: Whose network, optimizer and schedule.
        steps: Where the schedule of `same_chance` ends.
        seed: Of the weights and of the loader processes.
        results: nnU-Net's results folder.
    """
    os.environ.update(nnUNet_results=str(results))
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (the state nnU-Net draws from)
    torch.manual_seed(seed)
    SeededAugmenter.seed = seed
    trainer_module.NonDetMultiThreadedAugmenter = SeededAugmenter
    SameChanceTrainer.total_steps = steps
    plans = small_plan(prepared.plans) if mode == "same_chance" else json.loads(json.dumps(prepared.plans))
    # Its constructor takes this key out of the plans and fails where only its own command line would have put it.
    plans["continue_training"] = False
    kind = SameChanceTrainer if mode == "same_chance" else trainer_module.nnUNetTrainer
    trainer = kind(plans, _CONFIGURATION, _FOLD, prepared.dataset, device=torch.device("cpu"))
    trainer.initialize()
    trainer.on_train_start()
    try:
        yield trainer
    finally:
        trainer.dataloader_train._finish()
        trainer.dataloader_val._finish()


def train(trainer: trainer_module.nnUNetTrainer, *, mode: Mode, steps: int, every: int = 50) -> _Steps:
    """Take so many steps, in nnU-Net's own order of epochs for `default`."""
    done = _Steps()
    trainer.network.train()
    outputs: list[dict[str, Any]] = []
    for step in range(steps):
        if mode == "default" and step % trainer.num_iterations_per_epoch == 0:
            trainer.on_epoch_start()
            trainer.on_train_epoch_start()
        began = time.perf_counter()
        output = trainer.train_step(next(trainer.dataloader_train))
        done.seconds.append(time.perf_counter() - began)
        done.losses.append(float(output["loss"]))
        outputs.append(output)
        if mode == "same_chance":
            trainer.lr_scheduler.step()
        elif (step + 1) % trainer.num_iterations_per_epoch == 0:
            _end_epoch(trainer, outputs)
            outputs = []
        if (step + 1) % every == 0 or step + 1 == steps:
            recent = done.losses[-every:]
            print(f"[{step + 1}/{steps}] loss {statistics.fmean(recent):.4f}", flush=True)
    return done


def _end_epoch(trainer: trainer_module.nnUNetTrainer, outputs: list[dict[str, Any]]) -> None:
    """What nnU-Net does between two epochs, its validation batches among it."""
    trainer.on_train_epoch_end(outputs)
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        batches = range(trainer.num_val_iterations_per_epoch)
        trainer.on_validation_epoch_end([trainer.validation_step(next(trainer.dataloader_val)) for _ in batches])
    trainer.on_epoch_end()


def predict(trainer: trainer_module.nnUNetTrainer, data: Path, test: Sequence[str], *, mirror: bool, out: Path) -> None:
    """Predict whole images with nnU-Net's predictor; masks on the images' own voxels, as its export writes them."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    predictor = nnUNetPredictor(
        tile_step_size=0.5,
        use_gaussian=True,
        use_mirroring=mirror,
        perform_everything_on_device=False,
        device=trainer.device,
        verbose=False,
        verbose_preprocessing=False,
        allow_tqdm=False,
    )
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    reader = trainer.plans_manager.image_reader_writer_class()
    ending = trainer.dataset_json["file_ending"]
    for case in test:
        files = [str(data / "imagesTr" / f"{case}_{k:04d}{ending}") for k in range(trainer.num_input_channels)]
        image, properties = reader.read_images(files)
        predictor.predict_single_npy_array(image, properties, None, str(out / case), False)
    trainer.set_deep_supervision_enabled(True)


def time_steps(
    prepared: Prepared, clock: _Clock, *, mode: Mode, count: int, seed: int, out: Path
) -> tuple[float, float]:
    """Seconds from the birth of the process to the first step, and of one step: what was trained is thrown away.

    A step's time is the mean of `count` steps after a few that are not counted, since the slow ones count as well.
    """
    with started(prepared, mode=mode, steps=1000, seed=seed, results=out / "timing") as trainer:
        start_up = clock.charged()
        train(trainer, mode=mode, steps=_WARM_UP_STEPS)
        began = clock.charged()
        train(trainer, mode=mode, steps=count)
        per_step = (clock.charged() - began) / count
    shutil.rmtree(out / "timing", ignore_errors=True)
    return start_up, per_step


def contend(arguments: argparse.Namespace) -> None:
    """Prepare, train, predict, score; or only time the steps."""
    clock = _Clock()
    SameChanceTrainer.rate = arguments.rate
    torch.set_num_threads(arguments.threads)
    os.environ.update(nnUNet_n_proc_DA=str(arguments.workers))
    split = json.loads(arguments.split.read_text())
    prepared = prepare(
        arguments.data, [*split["train"], *split["tuning"]], split["tuning"] or split["train"][:4], work=arguments.work
    )
    clock.uncharged += prepared.spent_now
    options = {"mode": arguments.mode, "seed": arguments.seed}
    steps = arguments.steps
    if steps is None:
        before = clock.age()
        count = arguments.time_steps or _TIMED_STEPS
        start_up, per_step = time_steps(prepared, clock, count=count, out=arguments.out, **options)
        if arguments.time_steps:
            found = {"start_up": start_up, "per_step": per_step, "steps_timed": count, "workers": arguments.workers}
            (arguments.out / "timing.json").write_text(json.dumps(found | {"preparing": prepared.seconds}))
            print(f"seconds_start_up {start_up:.2f}\nseconds_per_step {per_step:.4f} (mean of {count})")
            return
        clock.uncharged += clock.age() - before
        steps = steps_within(arguments.budget, start_up=start_up, per_step=per_step)
        print(f"{per_step:.4f} s a step: {steps} steps fill what is left of {arguments.budget:.0f} s")
    with started(prepared, steps=steps, results=arguments.out / "nnunet", **options) as trainer:
        start_up = clock.charged()
        done = train(trainer, mode=arguments.mode, steps=steps)
        training = clock.charged() - start_up
        median = statistics.median(done.seconds)
        timings = Timings(prepared.seconds, start_up, median, training)
        print(f"start-up {start_up:.1f} s, training {training:.1f} s, {median:.4f} s a step", flush=True)
        trainer.save_checkpoint(str(arguments.out / "checkpoint_final.pth"))
    _conclude(trainer, arguments, split["test"], timings, clock, done)


def _conclude(
    trainer: trainer_module.nnUNetTrainer,
    arguments: argparse.Namespace,
    test: Sequence[str],
    timings: Timings,
    clock: _Clock,
    done: _Steps,
) -> None:
    """Predict with and without mirroring, score, write the tables and last of all run.json."""
    out: Path = arguments.out
    began, scores = time.perf_counter(), {}
    for name, mirror in (("plain", False), ("mirrored", True)):
        predict(trainer, arguments.data, test, mirror=mirror, out=out / f"labels_{name}")
        table = score_folder(out / f"labels_{name}", arguments.data, test)
        write_table(out / f"per_case_{name}.csv", table)
        scores[name] = statistics.fmean(row.mean for row in table)
        print(f"{name}: foreground Dice {scores[name]:.4f} over {len(table)} cases", flush=True)
    timings = replace(timings, predicting=time.perf_counter() - began, total=clock.charged())
    record = {
        "mode": arguments.mode,
        "seed": arguments.seed,
        "steps": len(done.losses),
        "rate": arguments.rate if arguments.mode == "same_chance" else None,
        "dice": scores,
        "timings": asdict(timings),
        "workers": arguments.workers,
        "threads": arguments.threads,
        "losses": done.losses,
        "versions": {name: version(name) for name in ("nnunetv2", "batchgeneratorsv2", "torch", "numpy")},
    }
    (out / "run.json").write_text(json.dumps(record, indent=1))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="nnU-Net raw folder")
    parser.add_argument("--split", type=Path, required=True, help="JSON with train, tuning and test case ids")
    parser.add_argument("--mode", choices=("same_chance", "default"), default="same_chance")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=RATE, help="peak learning rate of same_chance")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, help="training steps")
    length.add_argument("--budget", type=float, help="seconds; the steps that fill them are found by timing some first")
    length.add_argument("--time-steps", type=int, help="only time so many steps, and end")
    parser.add_argument("--work", type=Path, required=True, help="nnU-Net's prepared data, shared by runs")
    parser.add_argument("--out", type=Path, required=True, help="folder of this run")
    parser.add_argument("--workers", type=int, default=1, help="nnU-Net's augmentation processes")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="torch's threads in training")
    arguments = parser.parse_args()
    for name in ("data", "split", "work", "out"):
        setattr(arguments, name, getattr(arguments, name).resolve())
    arguments.out.mkdir(parents=True, exist_ok=True)
    contend(arguments)


if __name__ == "__main__":
    main()
