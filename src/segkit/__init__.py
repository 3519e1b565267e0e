"""segkit: medical and biological image segmentation, from a folder of images to a tracked, evaluated model.

    run = segkit.train(["data.root=/my/dataset"])                every verb of the command line is a function
    mask = segkit.load("runs/my-run").predict(array, spacing=(1.0, 1.0, 1.0))

Importing the package imports nothing else; each part is loaded when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segkit.workflows.predict import load as load

__version__ = "0.1.0"

VERBS = (
    *("check", "plan", "prepare", "train", "evaluate", "compare", "predict", "calibrate"),
    *("export", "status", "report", "sync", "doctor"),
)


def __getattr__(name: str) -> Any:  # noqa: ANN401  each name has its own type
    """Load a verb, or `load`, when it is first used."""
    if name in VERBS:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "load":
        return importlib.import_module(f"{__name__}.workflows.predict").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """What the package offers."""
    return sorted([*VERBS, "VERBS", "__version__", "load"])
