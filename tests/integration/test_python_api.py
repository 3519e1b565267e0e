"""The verbs are functions, and a loaded run predicts what the verb writes."""

import nibabel
import numpy as np

import segkit


def test_train_twice_then_predict_as_the_verb_does(nnunet_raw, tmp_path):
    root = nnunet_raw(cases=8)
    overrides = ["debug=fast", f"data.root={root}", f"paths.runs={tmp_path / 'runs'}", "overlays.cases=0"]
    overrides += ["trainer.threads=1"]
    runs = [segkit.train([*overrides, f"run_name={name}"]) for name in ("one", "two")]
    assert runs[0].score == runs[1].score
    image = sorted((root / "imagesTr").glob("*.nii.gz"))[0]
    segkit.predict([f"run={runs[0].directory.path}", f"input={image}", f"output={tmp_path / 'masks'}"])
    written = np.asarray(nibabel.load(next((tmp_path / "masks").glob("*.nii.gz"))).dataobj)
    loaded = segkit.load(runs[0].directory.path)
    np.testing.assert_array_equal(loaded.predict(image), written)
    array = np.asarray(nibabel.load(image).dataobj)
    np.testing.assert_array_equal(loaded.predict(array, spacing=(1.0, 1.0, 1.0)), written)
