"""The objects that a configuration describes, each from its group; what the plan decides is filled in.

`trust=True` builds any class that the user typed; the default builds from segkit, MONAI and torch only, which
is what a verb that reads somebody's run folder wants.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from segkit.augmentation.recipe import Recipe
from segkit.configuration.instantiate import TARGET, instantiate, locate, make_factory
from segkit.errors import UsageError
from segkit.module.fused import fusible, prepared
from segkit.networks.processor_convolution import mend_processor_convolutions
from segkit.planning.plan import Plan

_PLAN_ARGUMENTS = (
    "in_channels",
    "num_classes",
    "dimensions",
    "features",
    "strides",
    "kernel_sizes",
    "blocks_per_stage",
    "patch_size",
    "supervised_levels",
    "spacing",
)
_INITIAL_WEIGHTS = "encoder_weights"


def build_network(config: Mapping[str, Any], plan: Plan, *, trust: bool = False, restored: bool = False) -> nn.Module:
    """The network, with every value of the plan that its constructor names and the user did not set.

    Args:
        config: Resolved configuration.
        plan: The run's plan.
        trust: Whether any class may be built.
        restored: Whether a checkpoint's weights will take the place of its own: files of initial weights, which may be
            gone by now, are then not read.

    Raises:
        UsageError: If it cannot be built.
    """
    supplied = {name: getattr(plan, name) for name in _PLAN_ARGUMENTS}
    node = config["network"]
    if restored and isinstance(node, Mapping):
        node = {key: value for key, value in node.items() if key != _INITIAL_WEIGHTS}
    network: nn.Module = instantiate(node, where="network", supplied=supplied, trust=trust)
    return mend_processor_convolutions(network)


def build_loss(config: Mapping[str, Any], plan: Plan, *, trust: bool = False) -> nn.Module:
    """The loss of one level of logits; deep supervision is laid round it by the module that trains.

    Raises:
        UsageError: If it cannot be built, or says that it is none to use alone.
    """
    supplied = {"num_classes": plan.num_classes, "dimensions": plan.dimensions, "batch_dice": plan.batch_dice}
    loss: nn.Module = instantiate(config["loss"], where="loss", supplied=supplied, trust=trust)
    if not getattr(loss, "usable_alone", True):
        raise UsageError(
            "this loss cannot train a network alone",
            where="loss",
            why="some wrong answer, such as foreground everywhere or nothing anywhere, costs no more than the truth",
            mend="put it beside one that can: loss=sum loss@loss.terms.main=dice_ce loss@loss.terms.other=NAME "
            "loss.weights.main=1 loss.weights.other=1",
        )
    return loss


def build_recipe(config: Mapping[str, Any], *, trust: bool = False) -> Recipe:
    """The augmentation.

    Raises:
        UsageError: If it cannot be built.
    """
    recipe: Recipe = instantiate(config["augmentation"], where="augmentation", trust=trust)
    return recipe


def build_optimizer(
    config: Mapping[str, Any], plan: Plan, *, trust: bool = False
) -> Callable[[Iterable[nn.Parameter]], Optimizer]:
    """A function from parameters to the optimizer; the learning rate is the plan's where `lr` is null.

    It is the fused implementation where torch has one for these parameters and the user chose no other.

    Raises:
        UsageError: If it cannot be built.
    """
    node = config["optimizer"]
    factory = make_factory(
        node, where="optimizer", supplied={"lr": plan.learning_rate}, trust=trust, later=("params", "fused")
    )
    chosen = {**node, **(node.get("args") or {})}
    kind = locate(str(node[TARGET]), where="optimizer", trust=trust)

    def build(parameters: Iterable[nn.Parameter]) -> Optimizer:
        moved = list(parameters)
        fused = {"fused": True} if fusible(kind, chosen, moved, precision=plan.precision) else {}
        optimizer: Optimizer = factory(moved, **fused)
        return prepared(optimizer) if fused else optimizer

    return build


def build_scheduler(
    config: Mapping[str, Any], *, trust: bool = False
) -> Callable[..., LRScheduler | ReduceLROnPlateau]:
    """A function `(optimizer, *, total_steps)` to the schedule; a schedule without a horizon is not given one.

    Raises:
        UsageError: If it cannot be built.
    """
    return make_factory(config["scheduler"], where="scheduler", trust=trust, later=("optimizer", "total_steps"))
