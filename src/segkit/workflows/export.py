"""`export`: a trained run in the form that another program takes."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segkit.data.pipeline import COLOURS
from segkit.errors import UsageError
from segkit.weights.nnunet_export import class_names, file_ending, write_model_folder
from segkit.workflows.loading import TrainedRun, load
from segkit.workflows.postprocessing import stored_path


def run(config: Mapping[str, Any]) -> Path:
    """Write the run for the other program, and print what it is to know.

    Args:
        config: Keys of configs/export.yaml.

    Returns:
        The folder.

    Raises:
        UsageError: The folder is there already, there is no such run or checkpoint, or nnU-Net has no such network.
        StorageError: A file of the run is missing or damaged.
        OSError: As the system gave it; nothing is left behind.
    """
    output = Path(config["output"]).expanduser().absolute()
    if os.path.lexists(output):  # also a link to nothing: the folder could not take its place
        raise UsageError(
            "the folder to write is there already", where=f"output={config['output']}", mend="name one that is not"
        )
    trained = load(config["run"], checkpoint=str(config["checkpoint"]), accelerator="cpu", trust=config["trust"])
    write_model_folder(output, trained.predictor.network, trained.plan)
    print(f"{output}  nnU-Net's folder of {trained.directory.name}, {trained.selection.reason}")
    print("\n".join(f"  {line}" for line in notes(trained, output)))
    return output


def notes(trained: TrainedRun, folder: Path) -> list[str]:
    """What whoever goes on in nnU-Net is to know."""
    plan, labels, ending = trained.plan, trained.plan.labels, file_ending(trained.plan)
    if plan.channels == COLOURS:
        files = f"_0000{ending} in colours"
    else:
        files = ", ".join(f"_{number:04d}{ending} {name}" for number, name in enumerate(plan.channels))
    lines = [f"images    {files}; files of another kind are to be converted first"]
    if labels.ids != tuple(range(len(labels.ids))) or class_names(plan) != labels.names:
        classes = zip(class_names(plan), labels.ids, labels.names, strict=True)
        told = (f"{number} {name} (was {old} {own})" for number, (name, old, own) in enumerate(classes))
        lines.append(f"classes   as nnU-Net numbers and calls them: {', '.join(told)}")
    if labels.kind == "instances":
        lines.append("masks     0 and 1 there: nnU-Net does not number objects")
    if (rules := stored_path([trained.directory.path])) is not None and rules.exists():
        lines.append(f"masks     without the rules of {rules}, which segkit applies after the network")
    predict = f"nnUNetv2_predict_from_modelfolder -i IMAGES -o MASKS -m {shlex.quote(str(folder))} -f 0"
    lines.append(f"predict   {predict}{' --disable_tta' if plan.flip_axes else ''}")
    return lines
