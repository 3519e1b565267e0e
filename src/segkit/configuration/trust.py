"""What may be built because somebody else's run folder names it, and what may not.

A run folder is data from others. Its configuration names the classes that are built when it predicts, and building
a class runs its constructor: so only networks, losses, optimizers, schedules and augmentations of segkit, MONAI and
torch are built, and none whose constructor reads a file or the network. `trust=true` is the only door past this;
`train` builds what its user typed.
"""

import inspect
import re
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from segkit.errors import UsageError

# segkit, MONAI and torch also hold functions that run code from a file or write one (torch.load, torch.hub.load,
# monai.bundle.run, our own writers), and modules that do things when they are imported. From a run folder only what
# lies in these packages is imported, and of it only these are built:
_HOMES = (
    "segkit.networks",
    "segkit.losses",
    "segkit.augmentation",
    "segkit.module",
    "torch.nn",
    "torch.optim",
    "monai.networks.nets",
    "monai.networks.blocks",
    "monai.networks.layers",
    "monai.losses",
    "monai.optimizers",
)
_BASES = (nn.Module, Optimizer, LRScheduler)
_FUNCTIONS = "segkit.module.schedules"
_OURS = "segkit."
# These run code from a repository (torch.hub), compile, or read a file, whatever their arguments.
_NEVER = (
    "monai.losses.perceptual",
    "monai.networks.layers.gmm",
    "monai.networks.nets.transchex",
    "monai.networks.nets.cell_sam_wrapper",
)
_FETCHING = re.compile(r"pretrain|url|repo|path|file|cache_dir|checkpoint|weights", re.IGNORECASE)
"""Names of arguments that make a constructor read or download something where they are text, or `pretrained=true`."""


def require_trusted_path(path: str, *, where: str) -> None:
    """Refuse an import path outside the packages that hold parts of a model; nothing is imported for it.

    Raises:
        UsageError: It lies elsewhere.
    """
    if not _inside(path, _HOMES):
        raise _untrusted(path, where)


def require_trusted_class(found: object, path: str, *, where: str) -> None:
    """Refuse what is no part of a model, by what it is and by where it was defined.

    Args:
        found: What lies at the import path.
        path: The import path.
        where: Key of the configuration.

    Raises:
        UsageError: It is a function, another class, or one of those that load code or files.
    """
    home = str(getattr(found, "__module__", ""))
    is_part = inspect.isclass(found) and (issubclass(found, _BASES) or home.startswith(_OURS))
    is_schedule = inspect.isfunction(found) and home == _FUNCTIONS
    if not _inside(home, _HOMES) or _inside(home, _NEVER) or not (is_part or is_schedule):
        raise _untrusted(path, where)


def refuse_fetching(signature: inspect.Signature, arguments: Mapping[str, Any], *, target: str, where: str) -> None:
    """Refuse a constructor that would read a file or the network, by an argument given or by its default.

    Args:
        signature: Of the constructor.
        arguments: What it is given.
        target: Its name, for the message.
        where: Key of the configuration.

    Raises:
        UsageError: Naming the argument.
    """
    defaults = {name: parameter.default for name, parameter in signature.parameters.items()}
    for name, value in (defaults | dict(arguments)).items():
        if _FETCHING.search(name) and ((isinstance(value, str) and value) or (value is True and "pretrain" in name)):
            raise UsageError(
                f"{target} would read or download something when it is built from a run folder",
                where=f"{where}.{name}",
                why=f"{name} is {str(value)[:200]!r}",
                mend="trust=true, if you know where the run comes from",
            )


def _untrusted(path: str, where: str) -> UsageError:
    return UsageError(
        f"{path or 'a class without a name'} is not built from a run folder",
        where=f"{where}._target_",
        why="it is no network, loss, optimizer or schedule of segkit, MONAI or torch, and building it runs its code",
        mend="trust=true, if you know where the run comes from",
    )


def _inside(path: str, packages: tuple[str, ...]) -> bool:
    return any(path == package or path.startswith(f"{package}.") for package in packages)
