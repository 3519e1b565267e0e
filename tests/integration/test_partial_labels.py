"""Training on cases of which some classes were not annotated: the loss is told, in training and in validation."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from lightning.pytorch import Callback

from segkit.errors import UsageError
from segkit.losses.partial_labels import PartialLabels
from segkit.workflows import train


class Watch(Callback):
    """What the loss is and what the batches say."""

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.loss, self.present = module.loss.loss, batch.target.labels_present


@pytest.mark.parametrize("partly", [True, False])
def test_the_loss_knows_what_was_annotated_where_not_everything_was(partly, run_config) -> None:
    one_epoch = ("trainer.max_epochs=1", "trainer.steps_per_epoch=1")
    config, watch = run_config("r", *one_epoch), Watch()
    root = Path(config["data"]["root"])
    description = json.loads((root / "dataset.json").read_text())
    if partly:
        for path in (root / "labelsTr").iterdir():
            image = nibabel.load(path)
            label = np.asarray(image.dataobj) * (np.asarray(image.dataobj) == 1)
            nibabel.save(nibabel.Nifti1Image(label, image.affine), path)
        cases = sorted(path.name.removesuffix(".nii.gz") for path in (root / "labelsTr").iterdir())
        description["annotated"] = {case_id: ["ball_a"] for case_id in cases}
        (root / "dataset.json").write_text(json.dumps(description))
    train.run(config, callbacks=[watch])
    rows = [json.loads(row) for row in (Path(config["paths"]["runs"]) / "r" / "metrics.jsonl").read_text().splitlines()]
    assert any(row["key"] == "val/loss" and np.isfinite(row["value"]) for row in rows)
    assert isinstance(watch.loss, PartialLabels) == partly
    if not partly:
        assert watch.present is None
        return
    assert watch.present.tolist() == [[True, True, False]] * len(watch.present)
    del description["annotated"]
    (root / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(UsageError, match="other classes declared as annotated"):
        train.run(run_config("r", "trainer.max_epochs=2", "trainer.steps_per_epoch=1"))
