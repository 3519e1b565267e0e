"""How segkit's parts are built for a comparison: from configurations, as its own verbs build them."""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.bench import Bench, synchronise
from benchmarks.process import run_python
from benchmarks.topology import Topology
from segkit.configuration import build_loss, build_network, build_optimizer, compose
from segkit.data.pipeline import open_dataset, plan_dataset
from segkit.inference.predictor import Predictor, autocast
from segkit.losses.deep_supervision import DeepSupervision
from segkit.networks.memory_format import to_device
from segkit.planning.device import device_facts
from segkit.planning.plan import Plan
from segkit.runs.files import write_json
from segkit.types import Target

FP32 = "32-true"


@dataclass(frozen=True)
class Parts:
    """A network, what trains it, and the plan that decided how."""

    config: dict[str, Any]
    plan: Plan
    network: nn.Module
    loss: nn.Module
    optimizer: Optimizer


def overrides(
    bench: Bench, topology: Topology | None = None, *, precision: str | None = None, deep_supervision: bool = True
) -> list[str]:
    """The command line of a comparison with nnU-Net: its recipe, the same topology, every case to train on.

    Args:
        bench: Where data and workspace are.
        topology: Network, patch and batch; None: by the plan.
        precision: None: segkit's own choice for the device.
        deep_supervision: Whether coarser levels are supervised too.
    """
    words = [
        f"data.root={bench.data}",
        f"data.split.file={_everyone(bench)}",
        f"paths.runs={bench.workspace / 'runs'}",
        f"trainer.accelerator={bench.device}",
        "experiment=nnunet",
        "tracking=none",
    ]
    if topology is not None:
        words += [
            f"plan.patch_size={_list(topology.patch)}",
            f"plan.batch_size={topology.batch}",
            f"plan.features={_list(topology.features)}",
            f"plan.strides={_list(topology.strides)}",
            f"plan.kernel_sizes={_list(topology.kernels)}",
        ]
    if precision is not None:
        words.append(f"trainer.precision={precision}")
    if not deep_supervision:
        words.append("network.deep_supervision=false")
    return words


def planned(words: list[str]) -> tuple[dict[str, Any], Plan]:
    """Configuration and plan, as `segkit.plan` would make them."""
    config = compose("train", words)
    return config, plan_dataset(open_dataset(config), config, device_facts(config["trainer"]["accelerator"]))


def build(words: list[str]) -> Parts:
    """Network, loss of all levels and optimizer."""
    config, plan = planned(words)
    torch.manual_seed(0)
    device = device_facts(config["trainer"]["accelerator"]).kind
    network = to_device(build_network(config, plan), device, channels_last=plan.channels_last)
    loss = DeepSupervision(build_loss(config, plan))
    return Parts(config, plan, network, loss, build_optimizer(config, plan)(network.parameters()))


def step(
    bench: Bench, topology: Topology, *, precision: str | None = None, deep_supervision: bool = True
) -> Callable[[], None]:
    """Forward, loss, backward, clipping and the optimizer's step on one batch that stays the same."""
    parts = build(overrides(bench, topology, precision=precision, deep_supervision=deep_supervision))
    image, label = topology.inputs(bench.device)
    target, device = Target(label=label), torch.device(bench.device)
    network: Callable[[Tensor], Any] = torch.compile(parts.network) if parts.plan.compile else parts.network
    clip = parts.config["trainer"]["gradient_clip"]

    def one() -> None:
        parts.optimizer.zero_grad(set_to_none=True)
        with autocast(device, parts.plan.precision):
            loss = parts.loss(network(image), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts.network.parameters(), clip)
        parts.optimizer.step()
        synchronise(bench)

    return one


def network(
    bench: Bench, topology: Topology, name: str, *, precision: str | None = None, deep_supervision: bool | None = None
) -> tuple[nn.Module, str]:
    """A network of `configs/network` alone, and the precision it computes in.

    It is built by the rung `base`: on nnU-Net's rung the coarsest level has no head, which nnU-Net's networks have.

    Args:
        bench: Device and data.
        topology: What of it the network takes from a plan.
        name: As `network=` has it.
        precision: None: segkit's own choice for the device.
        deep_supervision: None: as the file has it.
    """
    words = [*overrides(bench, topology, precision=precision), f"network={name}", "plan=base"]
    words.append(f"plan.blocks_per_stage={_list(topology.blocks)}")
    if deep_supervision is not None:
        words.append(f"network.deep_supervision={str(deep_supervision).lower()}")
    config, plan = planned(words)
    torch.manual_seed(0)
    return to_device(build_network(config, plan), bench.device, channels_last=plan.channels_last), plan.precision


def predictor(bench: Bench, topology: Topology, *, precision: str | None = None) -> Predictor:
    """The network over whole images, as `predict` uses it."""
    parts = build(overrides(bench, topology, precision=precision))
    return Predictor(
        parts.network,
        patch_size=parts.plan.patch_size,
        num_classes=parts.plan.num_classes,
        step=parts.config["validation"]["step"],
        tile_batch=parts.plan.tile_batch,
        device=bench.device,
        precision=parts.plan.precision,
    )


@dataclass
class Clock:
    """When the parts of a training happened, in seconds of `time.time`; filled by `train`.

    Args:
        first_step: End of the first step.
        warm: Beginning of the second epoch.
        end: End of the last epoch, its checkpoint included.
    """

    first_step: float = 0.0
    warm: float = 0.0
    end: float = 0.0


def train(
    words: list[str], *, steps: int, epochs: int, around: AbstractContextManager[object] | None = None
) -> tuple[Clock, dict[str, float]]:
    """`segkit train` in this process, with everything that it does around the steps except validation.

    Args:
        words: Its command line.
        steps: Of an epoch.
        epochs: Epochs.
        around: Entered when the second epoch begins, left when the last one ends.

    Returns:
        When what happened, and the last epoch's timings by key.
    """
    from lightning.pytorch import Callback, LightningModule, Trainer

    from segkit.configuration.entry import Request, resolve
    from segkit.workflows import train as workflow

    clock, watched = Clock(), ExitStack()

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:  # noqa: ANN401
            del pl_module, rest
            if trainer.global_step == 1:
                clock.first_step = time.time()

        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            del pl_module
            if trainer.current_epoch == 1:
                if around is not None:
                    watched.enter_context(around)
                clock.warm = time.time()

        def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            del trainer, pl_module
            clock.end = time.time()
            watched.close()

    name = f"bench-{os.getpid()}"
    words = [
        *words,
        f"run_name={name}",
        f"trainer.steps_per_epoch={steps}",
        f"trainer.max_epochs={epochs}",
        "overlays.cases=0",
    ]
    config = resolve("train", Request(overrides=words))
    workflow.run(config, callbacks=[Watch()])
    return clock, _last_timings(Path(config["paths"]["runs"]) / name / "timings.jsonl")


def prepared(bench: Bench) -> None:
    """Prepare every case, where the trainings of this run find it."""
    run_python(prepare(bench, bench.workspace / "runs" / ".prepared"))


def prepare(bench: Bench, cache: Path) -> list[str]:
    """The command that checks, plans and prepares every case, into an empty cache."""
    words = [f"data.root={bench.data}", f"data.split.file={_everyone(bench)}", f"paths.cache={cache}", "plan=nnunet"]
    return ["-m", "segkit.prepare", *words, f"trainer.accelerator={bench.device}"]


def _everyone(bench: Bench) -> Path:
    """A file of roles in which every case is trained on: nnU-Net prepares all, so ours shall too."""
    path = bench.workspace / f"everyone-{bench.data.name}.json"
    if not path.exists():
        cases = sorted({image.name.rsplit("_", 1)[0] for image in (bench.data / "imagesTr").iterdir()})
        write_json(path, {"train": cases, "tuning": [], "test": []})
    return path


def _last_timings(path: Path) -> dict[str, float]:
    from segkit.tracking.journal import read_rows

    return {row.key: row.value for row in read_rows(path)}


def _list(values: Any) -> str:  # noqa: ANN401  nested sequences of numbers
    if isinstance(values, list | tuple):
        return "[" + ",".join(_list(value) for value in values) + "]"
    return str(values)
