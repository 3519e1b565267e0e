"""A run that needs no training: its network is a threshold, so that what it must predict is known."""

import nibabel
import numpy as np
import pytest
import torch
from tests.mlflow_stores import make_store
from tests.runs_of_phantoms import assert_bitwise_equal, end_state, run_config

from segkit.configuration import build_network, compose
from segkit.data.pipeline import open_dataset, plan_dataset, prepare_dataset
from segkit.planning.device import DeviceFacts
from segkit.runs.checkpoints import write_checkpoint
from segkit.runs.directory import RunDirectory
from segkit.runs.files import write_json
from segkit.runs.index import refresh
from segkit.runs.manifest import Entry, checkpoint_path

__all__ = ["assert_bitwise_equal", "end_state", "make_store", "run_config", "threshold_run"]

CPU = DeviceFacts("cpu", "test", 8 * 2**30, cores=1, native_bf16=False)


@pytest.fixture
def with_island():
    """Factory: `with_island(path, size=2)` makes a cube in a corner of an image as bright as the structure.

    The label stays as it is: what a threshold finds there is false.
    """

    def change(path, size=2):
        image = nibabel.load(path)
        array = image.get_fdata().astype(np.float32)
        array[-size:, -size:, -size:] = 180.0
        nibabel.save(nibabel.Nifti1Image(array, image.affine), path)
        return path

    return change


@pytest.fixture
def threshold_run(tmp_path):
    """Factory: `threshold_run(data_root, threshold, *overrides, name="run")` writes a run folder, returns its path.

    The network is a 1x1 convolution of the first channel: class 1 where the normalised intensity exceeds the
    threshold. With `beside`, it looks at the voxel at this distance instead, by axis -1, 0 or 1; outside lie zeros.
    Checkpoints: step 1 never predicts anything, step 2 is the threshold.
    """

    def make(root, threshold, *overrides, name="run", beside=None):
        config = compose(
            "train",
            [
                f"data.root={root}",
                f"paths.runs={tmp_path / 'runs'}",
                "plan=tiny",
                "trainer.precision=32-true",
                *overrides,
            ],
        )
        opened = open_dataset(config)
        plan = plan_dataset(opened, config, CPU)
        prepared = prepare_dataset(opened, plan)
        convolution = f"torch.nn.Conv{plan.dimensions}d"
        channels = {"in_channels": plan.in_channels, "out_channels": plan.num_classes}
        size = {"kernel_size": 1} if beside is None else {"kernel_size": 3, "padding": 1}
        config["network"] = {"_target_": convolution, **channels, **size}
        voxel = (0,) * plan.dimensions if beside is None else tuple(1 + distance for distance in beside)
        run = RunDirectory(tmp_path / "runs" / name).create()
        run.save_config(config)
        write_json(run.plan, plan.to_json())
        write_json(run.split, prepared.roles.to_json())
        network = build_network(config, plan)
        for step, above in ((1, 1e6), (2, threshold)):
            torch.nn.init.zeros_(network.weight)
            torch.nn.init.zeros_(network.bias)
            with torch.no_grad():
                network.weight[(1, 0, *voxel)], network.bias[1] = 1.0, -above
                network.bias[2:] = -1e6
            model = {f"network.{key}": value for key, value in network.state_dict().items()}
            score = 0.1 * step
            entry = Entry(
                step=step, n=step, epoch=step, validated_n=step, score=score, per_case={"a": score, "b": score}
            )
            write_checkpoint(checkpoint_path(run.checkpoints, step), entry, model=model, optimizer={}, state={})
        refresh(run.checkpoints)
        return run.path

    return make
