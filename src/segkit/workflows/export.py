"""`export`: a trained run in the form that another program takes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segkit.errors import UsageError
from segkit.planning.plan import Plan
from segkit.weights.nnunet_export import write_model_folder
from segkit.workflows.loading import load


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
    if output.exists():
        raise UsageError(
            "the folder to write is there already", where=f"output={config['output']}", mend="name one that is not"
        )
    trained = load(config["run"], checkpoint=str(config["checkpoint"]), accelerator="cpu", trust=config["trust"])
    write_model_folder(output, trained.predictor.network, trained.plan)
    print(f"{output}  nnU-Net's folder of {trained.directory.name}, {trained.selection.reason}")
    print("\n".join(f"  {line}" for line in notes(trained.plan, output)))
    return output


def notes(plan: Plan, folder: Path) -> list[str]:
    """What whoever goes on in nnU-Net is to know."""
    names, ids = plan.labels.names, plan.labels.ids
    lines = [f"channels  {', '.join(f'_{number:04d} {name}' for number, name in enumerate(plan.channels))}"]
    if ids != tuple(range(len(ids))):
        numbered = ", ".join(f"{number} {names[number]} (was {ids[number]})" for number in range(len(ids)))
        lines.append(f"classes   numbered anew: {numbered}")
    predict = f"nnUNetv2_predict_from_modelfolder -i IMAGES -o MASKS -m {folder} -f 0"
    lines.append(f"predict   {predict}{' --disable_tta' if plan.flip_axes else ''}")
    return lines
