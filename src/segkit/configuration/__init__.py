"""The configuration: what the YAML tree says, what the user typed, and the objects both describe.

    tree, value_types, help      the files as text: keys, types, comments
    overrides, checks, rules     what the user typed, and all that is wrong with it
    composition                  the one place where Hydra composes
    entry, multirun              from a command line to an exit code
    instantiate, build           from a dictionary to a network, a loss, an optimizer

Only this package knows Hydra and OmegaConf. Importing it imports neither, nor torch: what needs them is
loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from segkit.configuration.entry import call, main
from segkit.configuration.tree import config_dir

if TYPE_CHECKING:
    from segkit.configuration.build import build_loss as build_loss
    from segkit.configuration.build import build_network as build_network
    from segkit.configuration.build import build_optimizer as build_optimizer
    from segkit.configuration.build import build_recipe as build_recipe
    from segkit.configuration.build import build_scheduler as build_scheduler
    from segkit.configuration.composition import compose as compose

_HOME = {
    "compose": "composition",
    "build_network": "build",
    "build_loss": "build",
    "build_recipe": "build",
    "build_optimizer": "build",
    "build_scheduler": "build",
}

__all__ = [*_HOME, "call", "config_dir", "main"]


def __getattr__(name: str) -> Any:  # noqa: ANN401  each name has its own type
    """Load what needs Hydra or torch when it is first used."""
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
