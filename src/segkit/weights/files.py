"""Reading weights from a file or folder that somebody else may have made; nothing in it is executed.

a run folder of segkit         its selected checkpoint
a checkpoint's folder          step-00001234
*.safetensors                  named tensors
*.pth, *.pt, *.ckpt            what torch.save wrote: nnU-Net's checkpoint, a self-supervised one made for it, or a
                               dictionary of tensors, alone or under one of the usual keys
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from segkit.errors import DataError, StorageError, UsageError
from segkit.planning.plan import Plan
from segkit.runs.checkpoints import read_weights as read_checkpoint_weights
from segkit.runs.directory import RunDirectory
from segkit.runs.index import load_index
from segkit.runs.manifest import MANIFEST, MODEL, checkpoint_path
from segkit.runs.selection import select
from segkit.runs.tensors import load_plain, load_tensors
from segkit.weights import nnunet
from segkit.weights.source import Source

KEYS = (nnunet.WEIGHTS, "state_dict", "model_state_dict", "model", "weights")
"""Under which files keep their tensors; tried in this order, then the file itself."""
_PREFIX = "network."
_STUMBLES = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


def read_weights(path: Path) -> Source:
    """Read the weights that a path names.

    Raises:
        UsageError: There is nothing, or nothing of this kind.
        DataError: A file that cannot be read as tensors and plain values, or a weight that is not finite.
        StorageError: A checkpoint of segkit that is damaged.
    """
    if not path.exists():
        mend = "weights=<a run's folder, or a file of weights>"
        raise UsageError(
            "There are no such weights.", where=f"weights={path}", why="the path does not exist", mend=mend
        )
    if path.is_dir():
        source = _of_folder(path)
    elif path.suffix == ".safetensors":
        source = _of_segkit(_safetensors(path), path.parent, told=f"the tensors of {path.name}")
    else:
        source = _of_archive(path)
    if not source.tensors:
        raise DataError("The file holds no weights.", where=f"weights={path}", why=f"it is {source.told}")
    for name, tensor in source.tensors.items():
        if not bool(tensor.isfinite().all()):
            raise DataError("A weight is not finite.", where=f"weights={path}", why=f"{name} holds NaN or Inf")
    return source


def _of_folder(path: Path) -> Source:
    """A checkpoint of segkit, or the selected one of a run."""
    run = RunDirectory(path)
    if not (path / MANIFEST).is_file() and run.exists:
        rule = str(run.load_config().get("select", "best_if_better"))
        selected = select(load_index(run.checkpoints), rule=rule)  # type: ignore[arg-type]
        path = checkpoint_path(run.checkpoints, selected.entry.step)
    if not (path / MANIFEST).is_file():
        raise UsageError(
            "The folder holds no weights.",
            where=f"weights={path}",
            why=f"neither a run (config.yaml) nor a checkpoint ({MANIFEST}) of segkit lies in it",
            mend="weights=<the folder of a run>, or the file itself: fold_0/checkpoint_final.pth of a model of nnU-Net",
        )
    return _of_segkit(read_checkpoint_weights(path), path, told=f"{path.name} of the run {_run_of(path).name}")


def _of_segkit(tensors: Mapping[str, Tensor], checkpoint: Path, *, told: str) -> Source:
    """Tensors beside which a run may lie that says what their channels and classes are."""
    own = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items() if name.startswith(_PREFIX)}
    run = _run_of(checkpoint)
    if not own or not (checkpoint / MODEL).is_file() or not run.plan.is_file():
        return Source(own or dict(tensors), "segkit" if own else "plain", told)
    try:
        plan = Plan.from_json(json.loads(run.plan.read_bytes()))
    except _STUMBLES as error:
        raise StorageError("a file of the run cannot be understood", where=str(run.plan), why=repr(error)) from error
    return Source(own, "segkit", told, channels=plan.channels, classes=plan.labels.names, run=run.path)


def _run_of(checkpoint: Path) -> RunDirectory:
    """The run whose checkpoint this is: RUN/checkpoints/step-00001234."""
    return RunDirectory(checkpoint.absolute().parent.parent)


def _of_archive(path: Path) -> Source:
    """What `torch.save` wrote."""
    try:
        content = load_plain(path, named=nnunet.NAMED)
    except StorageError as error:
        raise _unreadable(path, error.why) from error
    key = next((key for key in KEYS if isinstance(content.get(key), Mapping)), None)
    tensors = _tensors(content if key is None else content[key])
    if key != nnunet.WEIGHTS and not nnunet.is_nnunets(tensors):
        return Source(tensors, "plain", f"a dictionary of tensors{f' under {key!r}' if key else ''}")
    try:
        return nnunet.source(content, tensors)
    except _STUMBLES as error:
        why = f"it has the keys of a checkpoint of nnU-Net, but not their contents: {type(error).__name__}: {error}"
        raise _unreadable(path, why[:300]) from error


def _tensors(value: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of a dictionary, without what else lies in it."""
    return {str(name): tensor.detach() for name, tensor in value.items() if isinstance(tensor, Tensor)}


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_tensors(path)
    except StorageError as error:
        raise _unreadable(path, error.why) from error


def _unreadable(path: Path, why: str) -> DataError:
    return DataError(
        "The weights cannot be read.",
        where=f"weights={path}",
        why=f"{why}; nothing of it was executed",
        mend="weights=<a file that nnU-Net, segkit or torch.save wrote, with tensors and plain values only>",
    )
