"""A trained run from its folder, ready to predict.

run = segkit.load("runs/my-run")
mask = run.predict(array, spacing=(1.0, 1.0, 1.0))      array (*S) or (C, *S)
mask = run.predict("scan.nii.gz")
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from segkit.configuration import build_network
from segkit.data.layouts import image_cases
from segkit.data.preprocessing import cut, nonzero_box, normalise, preprocess
from segkit.data.splits import Roles
from segkit.errors import DataError, StorageError, UsageError
from segkit.evaluation import EvaluationSettings
from segkit.evaluation.case import image_of
from segkit.evaluation.native import Stream, native_labels
from segkit.inference.predictor import Predictor
from segkit.inference.sums import SPILL_WINDOW
from segkit.networks.memory_format import choose_channels_last, to_device
from segkit.ops.resample import resample_image
from segkit.planning.device import device_kind
from segkit.planning.plan import Plan
from segkit.planning.rules import resampled_shape, separate_axis
from segkit.runs.checkpoints import read_weights
from segkit.runs.directory import RunDirectory
from segkit.runs.index import load_index
from segkit.runs.locate import open_run
from segkit.runs.manifest import Entry, checkpoint_path
from segkit.runs.selection import Selection, select
from segkit.types import Case, Geometry, PreparedCase, Spacing
from segkit.workflows.masks import label_values
from segkit.workflows.postprocessing import postprocessing_for
from segkit.workflows.provenance import Model
from segkit.workflows.stored import stored_ancestors, stored_config, stored_plan, stored_roles, stored_settings

logger = logging.getLogger(__name__)

_PREFIX = "network."
"""Under which the module that trains keeps the network."""


@dataclass(frozen=True)
class TrainedRun:
    """A run with the weights of one of its checkpoints.

    Args:
        directory: The run folder.
        config: The configuration it was trained with.
        plan: Its plan.
        settings: How its whole images become numbers.
        selection: Which checkpoint, and why.
        predictor: From a prepared image to logits.
    """

    directory: RunDirectory
    config: dict[str, Any]
    plan: Plan
    settings: EvaluationSettings
    selection: Selection
    predictor: Predictor

    @property
    def score(self) -> float:
        """Selection score of the checkpoint (optimistic: it was chosen by it); NaN without tuning cases."""
        return math.nan if self.selection.entry.score is None else self.selection.entry.score

    @property
    def prepared_cases(self) -> Path:
        """Where the run prepared its cases if that is here; a run from elsewhere names no place to write to."""
        named = Path(self.config["paths"].get("cache") or ".prepared").expanduser().absolute()
        return named if (named / "cases").is_dir() else self.directory.path.parent / ".prepared"

    @property
    def roles(self) -> Roles:
        """Roles of the cases, with the contents of those that were seen.

        Raises:
            StorageError: split.json is missing or damaged.
        """
        return stored_roles(self.directory)

    @property
    def provenance(self) -> Model:
        """Who was in which role, here and in the runs whose weights it began with.

        Raises:
            StorageError: split.json is missing, or it or ancestors.json is damaged.
        """
        return Model(self.directory.name, self.roles, stored_ancestors(self.directory))

    def predict(
        self,
        image: Shaped[np.ndarray, "..."] | str | Path,
        *,
        spacing: Sequence[float] | None = None,
        postprocess: str | Path = "stored",
    ) -> Int[np.ndarray, "..."]:
        """Label values of one image, on its own voxels.

        Args:
            image: A file, or an array (*S) or (C, *S) of raw intensities; volumes in RAS+ order.
            spacing: Voxel size of an array, mm by axis; may be left out for pictures only.
            postprocess: `stored`: by the rules in the run's folder, if there are any; `none`; or the file of the rules.

        Returns:
            (*S) in the order of the file or array, with the ids of the training labels; components are numbered
            where the labels are instances.

        Raises:
            DataError: A file that cannot be read, or an image that does not fit the model.
            UsageError: An array of a volume without spacing, or a folder; or rules that were fitted for other models.
        """
        return ensemble_prediction([self], image, spacing=spacing, postprocess=postprocess)


def load(
    run: str | Path,
    *,
    checkpoint: str = "selected",
    accelerator: str = "auto",
    precision: str | None = None,
    step: float | None = None,
    tile_batch: int | None = None,
    mirror: bool = False,
    trust: bool = False,
) -> TrainedRun:
    """Load a trained run.

    Args:
        run: Its folder, or its name below ./runs.
        checkpoint: `selected` by the run's own rule, `best`, `last`, or the path or name of a checkpoint's folder.
        accelerator: `auto`, `cpu`, `gpu`, `cuda` or `mps`.
        precision: What the network computes in; as in training if not given.
        step: Largest distance of two tiles, as a share of the patch; as in training if not given.
        tile_batch: Tiles a pass; as in training if not given.
        mirror: Whether to average over mirrored images, along the axes the plan allows.
        trust: Whether to build classes that the run names outside segkit, MONAI and torch: it runs their code.

    Raises:
        UsageError: No such run or checkpoint, or a class that is not trusted.
        StorageError: A file of the run is missing or damaged.
    """
    directory = open_run(run, root=Path("runs"))
    config, plan = stored_config(directory), stored_plan(directory)
    selection = choose_checkpoint(directory, checkpoint, rule=str(config.get("select", "best_if_better")))
    settings = stored_settings(directory, config)
    network = build_network(config, plan, trust=trust, restored=True)
    weights = read_weights(checkpoint_path(directory.checkpoints, selection.entry.step))
    _put(network, weights, where=directory.name)
    device = torch.device(device_kind(accelerator))
    precision = _precision(precision or config.get("trainer", {}).get("precision") or plan.precision, device)
    channels_last = plan.channels_last
    if precision != plan.precision:
        channels_last, _ = choose_channels_last(device.type, precision, plan.dimensions)
    predictor = Predictor(
        to_device(network, device, channels_last=channels_last).eval(),
        patch_size=plan.patch_size,
        num_classes=plan.num_classes,
        step=settings.step if step is None else step,
        tile_batch=tile_batch or plan.tile_batch,
        device=device,
        precision=precision,
        mirror_axes=plan.flip_axes if mirror else settings.mirror_axes,
    )
    return TrainedRun(directory, config, plan, settings, selection, predictor)


def load_from(config: dict[str, Any], run: str | Path) -> TrainedRun:
    """`load` with the keys that `evaluate` and `predict` share; sets the number of threads."""
    trainer, validation = config.get("trainer", {}), config.get("validation", {})
    if trainer.get("threads"):
        torch.set_num_threads(trainer["threads"])
    return load(
        run,
        checkpoint=str(config.get("checkpoint", "selected")),
        accelerator=trainer.get("accelerator", "auto"),
        precision=trainer.get("precision"),
        step=validation.get("step"),
        tile_batch=validation.get("tile_batch"),
        mirror=config.get("mirror", False),
        trust=config.get("trust", False),
    )


def models_of(members: Sequence[TrainedRun]) -> list[dict[str, Any]]:
    """What decides the logits of each member: what a temperature or rules are fitted for, and only for."""
    return [
        {
            "run": member.directory.name,
            "checkpoint": member.selection.entry.step,
            "step": member.predictor.step,
            "mirror_axes": list(member.predictor.mirror_axes),
        }
        for member in members
    ]


def choose_checkpoint(directory: RunDirectory, checkpoint: str, *, rule: str) -> Selection:
    """The checkpoint that `checkpoint` names, `rule` being the run's own.

    Raises:
        UsageError: There is no such checkpoint.
        StorageError: There is none at all.
    """
    entries = load_index(directory.checkpoints)
    if checkpoint in ("selected", "best", "last"):
        return select(entries, rule=rule if checkpoint == "selected" else checkpoint)  # type: ignore[arg-type]
    named: dict[str, Entry] = {checkpoint_path(directory.checkpoints, entry.step).name: entry for entry in entries}
    path = Path(checkpoint).expanduser()
    inside = path.parent == Path() or path.absolute().parent.resolve() == directory.checkpoints.resolve()
    if inside and path.name in named:
        return Selection(named[path.name], "last", f"{path.name}, as asked for")
    raise UsageError(
        "that is no checkpoint of this run",
        where=f"checkpoint={checkpoint}",
        why=f"the run has {', '.join(named) or 'none'}",
        mend="checkpoint=selected, best, last, or one of these",
    )


def ensemble_prediction(
    members: Sequence[TrainedRun],
    image: Shaped[np.ndarray, "..."] | str | Path,
    *,
    spacing: Sequence[float] | None = None,
    postprocess: str | Path = "stored",
) -> Int[np.ndarray, "..."]:
    """Label values of one image by the mean logits of several runs; see `TrainedRun.predict`."""
    plan = members[0].plan
    if isinstance(image, np.ndarray):
        prepared = [prepared_array(image, member.plan, spacing=spacing) for member in members]
    else:
        cases = image_cases(image)
        if len(cases) != 1:
            why = f"{image} holds {len(cases)} images"
            raise UsageError("predict takes one image at a time", why=why, mend="python -m segkit.predict input=FOLDER")
        prepared = prepare_for(members, cases[0])
    geometry = prepared[0].geometry
    runs = [member.directory.path for member in members]
    stored = postprocessing_for(runs, models_of(members), plan.labels, postprocess=postprocess)
    labels = native_labels(streams(members, prepared), geometry)
    if stored is not None:
        labels = stored.rules.apply(labels, spacing=geometry.native_spacing, labels=plan.labels)
    return label_values(labels, geometry, plan.labels)


def prepare_for(members: Sequence[TrainedRun], case: Case) -> list[PreparedCase]:
    """The image as each member wants it; members that prepare alike share it.

    Raises:
        DataError: A file that cannot be read, or an image that does not fit the model.
    """
    prepared: list[PreparedCase] = []
    for index, member in enumerate(members):
        alike = next((k for k in range(index) if members[k].plan.preprocessing() == member.plan.preprocessing()), None)
        prepared.append(preprocess(case, member.plan) if alike is None else prepared[alike])
    return prepared


def streams(
    members: Sequence[TrainedRun],
    prepared: Sequence[PreparedCase],
    *,
    scratch: Path | None = None,
    window: int = SPILL_WINDOW,
) -> list[Stream]:
    """The logits of one image by each member, computed as they are asked for; see `Predictor.stream`.

    Args:
        members: One or several.
        prepared: The image as each of them wants it.
        scratch: Folder of the files to sum in; None: in memory.
        window: Bytes of each of these files that may be in memory at once.
    """
    found = []
    for member, case in zip(members, prepared, strict=True):
        image = torch.from_numpy(case.image) if case.image.flags.writeable else image_of(case)
        blocks = member.predictor.stream(image, scratch=scratch, window=window)
        found.append(Stream(blocks, member.plan.num_classes, tuple(image.shape[1:])))
    return found


def prepared_array(image: Shaped[np.ndarray, "..."], plan: Plan, *, spacing: Sequence[float] | None) -> PreparedCase:
    """An array on the plan's grid: what `preprocess` does with a file, in the same steps.

    Raises:
        UsageError: No spacing for a plan in mm, or not one value an axis.
        DataError: Wrong number of channels or axes, or values that are not finite.
    """
    array = np.asarray(image, dtype=np.float32)
    array = array[None] if array.ndim == plan.dimensions else array
    if array.ndim != plan.dimensions + 1 or array.shape[0] != plan.in_channels:
        why = f"array {image.shape}; {plan.in_channels} channels and {plan.dimensions} axes are needed"
        raise DataError("the array does not fit the model", why=why, mend="give it as (*S) or (C, *S)")
    if not np.isfinite(array).all():
        raise DataError("the array holds NaN or Inf", mend="replace them, for example by numpy.nan_to_num")
    if spacing is None and plan.unit == "mm":
        raise UsageError("the model works in mm", where="spacing", mend="predict(array, spacing=(dx, dy, dz))")
    size: Spacing = tuple(float(s) for s in spacing) if spacing is not None else (1.0,) * plan.dimensions
    if len(size) != plan.dimensions or min(size) <= 0:
        raise UsageError("the spacing has one positive value an axis", where="spacing", why=f"it is {size}")
    shape = array.shape[1:]
    box = nonzero_box(array)
    normalised, valid = normalise(cut(array, box), plan.normalisation)
    grid = resampled_shape(normalised.shape[1:], size, plan.spacing)
    if grid != normalised.shape[1:]:
        if valid is not None:
            mend = "write the image to a file and predict that"
            raise UsageError("arrays cannot be resampled under a masked normalisation", where="spacing", mend=mend)
        normalised = resample_image(normalised, grid, separate_axis=separate_axis(size, plan.spacing))
    axes = tuple(range(plan.dimensions))
    geometry = Geometry(axes, (False,) * plan.dimensions, shape, size, box, plan.unit)
    return PreparedCase("array", "array", normalised, valid, None, None, None, geometry, "")


def _put(network: torch.nn.Module, weights: dict[str, Tensor], *, where: str) -> None:
    own = {name.removeprefix(_PREFIX): tensor for name, tensor in weights.items() if name.startswith(_PREFIX)}
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        why = str(error).splitlines()[-1].strip()
        raise StorageError("the weights do not fit the run's network", where=where, why=why) from error


def _precision(precision: str, device: torch.device) -> str:
    """Half precision of a GPU is emulated, slowly, on a CPU."""
    if precision == "16-mixed" and device.type == "cpu":
        logger.warning("16-mixed is for GPUs: computing in float32 here")
        return "32-true"
    return precision
