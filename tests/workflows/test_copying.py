"""The digest by which MLflow names the data of a run."""

import os

import nibabel
import numpy as np

from segkit.configuration import compose
from segkit.data.pipeline import open_dataset
from segkit.workflows.copying import _digest


def test_digest_is_of_images_and_masks_and_not_of_names_or_order(nnunet_raw, tmp_path):
    root = nnunet_raw(cases=6)
    config = compose("train", [f"data.root={root}", f"paths.cache={tmp_path / 'cache'}"])
    opened = open_dataset(config)
    train = opened.roles.train
    before = _digest(opened, train)
    assert before == _digest(opened, train[::-1])
    assert before != _digest(opened, train[1:])
    assert before != _digest(opened, opened.roles.tuning)
    case = next(case for case in opened.dataset.cases if case.case_id == train[0])
    mask = nibabel.load(case.label)
    voxels = np.asarray(mask.dataobj).copy()
    voxels[0, 0, 0] = 1
    changed = case.label.with_name("changed.nii.gz")
    nibabel.save(nibabel.Nifti1Image(voxels, mask.affine), changed)
    os.replace(changed, case.label)
    assert before != _digest(opened, train)
