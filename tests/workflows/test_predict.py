import csv
import json

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from segkit.errors import DataError, UsageError
from segkit.inference.postprocessing import ClassRule, PostProcessing
from segkit.workflows.loading import load, models_of
from segkit.workflows.predict import run

CODES = [("L", "A", "S"), ("R", "P", "I"), ("S", "R", "A"), ("A", "I", "L")]


def config(run_path, source, output, **keys):
    return {"run": run_path, "input": str(source), "output": str(output), "trainer": {"accelerator": "cpu"}} | keys


def dice(a, b):
    return 2 * np.count_nonzero((a > 0) & (b > 0)) / (np.count_nonzero(a > 0) + np.count_nonzero(b > 0))


def volumes(root):
    return sorted((root / "imagesTr").glob("*_0000.nii.gz"))


@pytest.mark.parametrize("codes", CODES)
def test_masks_lie_on_the_image_in_any_orientation_and_type(nnunet_raw, threshold_run, tmp_path, codes):
    root = nnunet_raw(cases=6, num_classes=2, shape=(18, 22, 14), spacing=(0.9, 0.8, 1.6))
    path = threshold_run(root, 1.3, "plan.spacing=[1.0,1.0,1.3]")
    source = tmp_path / "new"
    source.mkdir()
    image = nibabel.load(volumes(root)[0])
    # Something outside the crop: zeros round the image, so that the way back must undo crop, grid and order.
    padded = np.pad(image.get_fdata(), [(3, 1), (0, 4), (2, 2)])
    truth = np.pad(nibabel.load(root / "labelsTr" / "phantom_000.nii.gz").get_fdata(), [(3, 1), (0, 4), (2, 2)])
    to = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt(("R", "A", "S")), nibabel.orientations.axcodes2ornt(codes)
    )
    affine = image.affine @ nibabel.orientations.inv_ornt_aff(to, padded.shape)
    turned = nibabel.orientations.apply_orientation(padded, to)
    nibabel.save(nibabel.Nifti1Image(turned.astype(np.int16), affine), source / "scan_0000.nii.gz")
    (target,) = run(config(str(path), source, tmp_path / "masks"))
    mask = nibabel.load(target)
    assert target.name == "scan.nii.gz"
    assert mask.shape == turned.shape
    assert mask.get_data_dtype() == np.int16
    np.testing.assert_allclose(mask.affine, affine, atol=1e-5)
    found, expected = np.asarray(mask.dataobj), nibabel.orientations.apply_orientation(truth, to)
    agreement = dice(found, expected)
    assert agreement > 0.85
    for axis in range(3):
        for shift in (-1, 1):
            assert dice(np.roll(found, shift, axis), expected) < agreement - 0.02


def test_one_damaged_image_of_three(nnunet_raw, threshold_run, tmp_path, capsys):
    root = nnunet_raw(cases=6, num_classes=2)
    path = threshold_run(root, 1.3)
    source = tmp_path / "new"
    source.mkdir()
    for k, image in enumerate(volumes(root)[:3]):
        content = image.read_bytes()
        (source / f"scan{k}_0000.nii.gz").write_bytes(content[: len(content) // 2] if k == 1 else content)
    output = tmp_path / "masks"
    with pytest.raises(DataError, match="1 of 3 images") as raised:
        run(config(str(path), source, output))
    assert raised.value.exit_code == 65
    assert sorted(p.name for p in output.iterdir()) == ["errors.csv", "prediction.json", "scan0.nii.gz", "scan2.nii.gz"]
    with (output / "errors.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["case_id"] == "scan1"
    assert row["what"]
    # Mended, the same command does what is left and says what it kept.
    (source / "scan1_0000.nii.gz").write_bytes(volumes(root)[1].read_bytes())
    capsys.readouterr()
    run(config(str(path), source, output))
    assert capsys.readouterr().out.count("kept") == 2
    assert (output / "scan1.nii.gz").exists()
    assert not (output / "errors.csv").exists()


def test_masks_of_another_model_are_not_gone_on_with(nnunet_raw, threshold_run, tmp_path):
    root = nnunet_raw(cases=6, num_classes=2)
    first, second = threshold_run(root, 1.3, name="first"), threshold_run(root, 1.3, name="second")
    source, output = volumes(root)[0], tmp_path / "masks"
    (target,) = run(config(str(first), source, output))
    before = target.stat().st_mtime_ns
    with pytest.raises(UsageError, match="overwrite=true"):
        run(config(str(second), source, output))
    assert target.stat().st_mtime_ns == before
    run(config(str(second), source, output, overwrite=True))
    assert target.stat().st_mtime_ns > before


def test_images_are_never_replaced(nnunet_raw, threshold_run, paired_pictures, tmp_path):
    path = threshold_run(paired_pictures(cases=6), 1.0)
    folder = tmp_path / "pictures" / "images"
    with pytest.raises(UsageError, match="replace an image"):
        run(config(str(path), folder, folder))


def test_the_mean_of_two_runs(nnunet_raw, threshold_run, tmp_path):
    root = nnunet_raw(cases=6, num_classes=2, shape=(16, 18, 14))
    low, high = threshold_run(root, 0.5, name="low"), threshold_run(root, 2.1, "plan.spacing=[1.2,1,1]", name="high")
    middle = threshold_run(root, 1.3, name="middle")
    source = volumes(root)[0]
    (both,) = run(config([str(low), str(high)], source, tmp_path / "both"))
    (single,) = run(config(str(middle), source, tmp_path / "single"))
    a, b = (np.asarray(nibabel.load(p).dataobj) for p in (both, single))
    assert dice(a, b) > 0.97


def test_runs_of_other_labels_are_not_averaged(nnunet_raw, threshold_run, tmp_path):
    two = threshold_run(nnunet_raw(cases=6, num_classes=2, name="two"), 1.3, name="two")
    three = threshold_run(nnunet_raw(cases=6, num_classes=3, name="three"), 1.3, name="three")
    with pytest.raises(UsageError, match="differ in their labels"):
        run(config([str(two), str(three)], tmp_path / "two", tmp_path / "masks"))


def test_objects_are_numbered_where_labels_are_instances(paired_pictures, threshold_run, tmp_path):
    root = paired_pictures(cases=8, kind="instances", shape=(64, 56))
    path = threshold_run(root, 1.0, "data.labels=instances")
    run(config(str(path), root / "images", tmp_path / "masks"))
    for k in range(4):
        found = np.asarray(Image.open(tmp_path / "masks" / f"picture_{k:03d}.png"))
        truth = np.asarray(Image.open(root / "labels" / f"picture_{k:03d}.png"))
        sizes = np.bincount(found.ravel())[1:]
        assert np.count_nonzero(sizes > 10) == truth.max()
        assert found.shape == truth.shape
        _, components = ndimage.label(found > 0, structure=np.ones((3, 3)))
        assert components == found.max()


def test_label_ids_of_a_mask_are_the_users(paired_pictures, threshold_run, tmp_path):
    root = paired_pictures(cases=6, kind="mask")
    path = threshold_run(root, 1.0)
    (target,) = run(config(str(path), root / "images" / "picture_000.png", tmp_path / "masks"))
    found = np.asarray(Image.open(target))
    assert set(np.unique(found)) == {0, 255}
    assert found.dtype == np.uint8


def test_the_python_api_agrees_with_the_command(nnunet_raw, threshold_run, tmp_path):
    root = nnunet_raw(cases=6, num_classes=2, spacing=(1.0, 1.0, 1.5))
    path = threshold_run(root, 1.3, "plan.spacing=[1,1,1.2]")
    source = volumes(root)[0]
    (target,) = run(config(str(path), source, tmp_path / "masks"))
    expected = np.asarray(nibabel.load(target).dataobj)
    trained = load(path, accelerator="cpu")
    np.testing.assert_array_equal(trained.predict(source), expected)
    array = nibabel.load(source).get_fdata()
    np.testing.assert_array_equal(trained.predict(array, spacing=(1.0, 1.0, 1.5)), expected)
    np.testing.assert_array_equal(trained.predict(array[None], spacing=(1.0, 1.0, 1.5)), expected)
    with pytest.raises(UsageError, match="mm"):
        trained.predict(array)
    with pytest.raises(DataError, match="does not fit"):
        trained.predict(array[0], spacing=(1.0, 1.0))
    with pytest.raises(UsageError, match="one image at a time"):
        trained.predict(root / "imagesTr")


def test_what_it_will_take_is_said_before_it_starts(nnunet_raw, threshold_run, tmp_path, capsys):
    root = nnunet_raw(cases=6, num_classes=2)
    path = threshold_run(root, 1.3)
    source = tmp_path / "new"
    source.mkdir()
    for k, image in enumerate(volumes(root)[:2]):
        (source / f"scan{k}_0000.nii.gz").write_bytes(image.read_bytes())
    run(config(str(path), source, tmp_path / "masks"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("memory: ")
    assert "predicted" in lines[0]
    assert sum(line.startswith("[") for line in lines) == 2


def test_images_that_do_not_fit_into_the_memory_given_are_named(nnunet_raw, threshold_run, tmp_path):
    path = threshold_run(nnunet_raw(cases=6, num_classes=2), 1.3)
    source = tmp_path / "Dataset900_Phantom" / "imagesTr"
    with pytest.raises(DataError, match="6 of 6 images") as raised:
        run(config(str(path), source, tmp_path / "masks", memory_gb=0.001))
    assert raised.value.exit_code == 65
    with (tmp_path / "masks" / "errors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["what"] for row in rows} == {"the image does not fit into the memory that may be taken"}


def test_output_that_is_not_finite_is_an_error_of_its_image(nnunet_raw, threshold_run, tmp_path):
    root = nnunet_raw(cases=6, num_classes=2)
    path = threshold_run(root, float("nan"))
    with pytest.raises(DataError, match="1 of 1 images") as raised:
        run(config(str(path), volumes(root)[0], tmp_path / "masks"))
    assert "not finite" in raised.value.why


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_probabilities_beside_the_masks(nnunet_raw, threshold_run, tmp_path, average):
    root = nnunet_raw(cases=6, num_classes=2, spacing=(1.0, 0.9, 1.4))
    runs = [threshold_run(root, 1.3), threshold_run(root, 0.9, "plan.spacing=[1.2,1,1]", name="other")]
    source, output = volumes(root)[0], tmp_path / "masks"
    keys = {"average": average, "probabilities": True}
    (target,) = run(config([str(path) for path in runs], source, output, **keys))
    image, mask = nibabel.load(source), np.asarray(nibabel.load(target).dataobj)
    written = nibabel.load(output / "probabilities" / f"{target.name.removesuffix('.nii.gz')}.nii.gz")
    found = np.asarray(written.dataobj)
    assert found.shape == (*image.shape, 2)
    np.testing.assert_allclose(written.affine, image.affine, atol=1e-5)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)
    np.testing.assert_array_equal(found.argmax(-1), mask)
    # Without them the same mask, and asking for them later makes what is missing.
    (plain,) = run(config([str(path) for path in runs], source, tmp_path / "plain", average=average))
    assert plain.read_bytes() == target.read_bytes()
    assert not (tmp_path / "plain" / "probabilities").exists()
    run(config([str(path) for path in runs], source, tmp_path / "plain", **keys))
    assert (tmp_path / "plain" / "probabilities" / written.get_filename().rpartition("/")[2]).exists()


def test_masks_of_another_average_are_not_gone_on_with(nnunet_raw, threshold_run, tmp_path):
    root = nnunet_raw(cases=6, num_classes=2)
    path, source = threshold_run(root, 1.3), volumes(root)[0]
    run(config(str(path), source, tmp_path / "masks"))
    with pytest.raises(UsageError, match="overwrite=true"):
        run(config(str(path), source, tmp_path / "masks", average="probabilities"))


def test_a_table_of_images(nnunet_raw, threshold_run, tmp_path):
    root = nnunet_raw(cases=6, num_classes=2, channels=2)
    path = threshold_run(root, 1.3)
    lines = [
        f"scan{k},{root.name}/imagesTr/phantom_00{k}_0000.nii.gz,{root.name}/imagesTr/phantom_00{k}_0001.nii.gz"
        for k in (3, 1)
    ]
    table = tmp_path / "images.csv"
    table.write_text("\n".join(["case,a,b", *lines, "gone,no.nii.gz,no.nii.gz"]) + "\n")
    with pytest.raises(DataError, match="1 of 3 images"):
        run(config(str(path), table, tmp_path / "masks"))
    run(config(str(path), root / "imagesTr", tmp_path / "all"))
    for k in (3, 1):
        by_table, by_folder = tmp_path / "masks" / f"scan{k}.nii.gz", tmp_path / "all" / f"phantom_00{k}.nii.gz"
        assert by_table.read_bytes() == by_folder.read_bytes()
    with (tmp_path / "masks" / "errors.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["case_id"] == "gone"


def test_one_of_ten_and_lines_in_order(nnunet_raw, threshold_run, tmp_path, capsys):
    root = nnunet_raw(cases=10, num_classes=2)
    path = threshold_run(root, 1.3)
    volumes(root)[6].write_bytes(b"no image")
    with pytest.raises(DataError, match="1 of 10 images"):
        run(config(str(path), root / "imagesTr", tmp_path / "masks"))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert [line.split("]")[0] for line in lines] == [f"[{k}/10" for k in range(1, 11)]
    assert "NOT PREDICTED" in lines[6]
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == 9


def store_rules(path, folder=None, *rules):
    """postprocessing.json for the run, as a fit writes it."""
    content = {
        "postprocessing": PostProcessing(rules or (ClassRule("ball_a", keep="largest"),)).to_json(),
        "models": models_of([load(path, accelerator="cpu")]),
        "fitting_cases": [],
    }
    ((folder or path) / "postprocessing.json").write_text(json.dumps(content))


def components(mask):
    return ndimage.label(np.asarray(nibabel.load(mask).dataobj), structure=np.ones((3, 3, 3)))[1]


def test_stored_rules_change_the_masks_and_nothing_else(nnunet_raw, threshold_run, with_island, tmp_path, capsys):
    root = nnunet_raw(cases=6, num_classes=2)
    path, source = threshold_run(root, 1.3), with_island(volumes(root)[0], size=2)
    keys = {"probabilities": True}
    (plain,) = run(config(str(path), source, tmp_path / "plain", **keys))
    assert "post-processing" not in capsys.readouterr().out
    store_rules(path)
    (target,) = run(config(str(path), source, tmp_path / "masks", **keys))
    said = capsys.readouterr().out.splitlines()[0]
    assert said == f"post-processing: ball_a: largest component kept ({path / 'postprocessing.json'})"
    before, after = (np.asarray(nibabel.load(mask).dataobj) for mask in (plain, target))
    ids, count = ndimage.label(before, structure=np.ones((3, 3, 3)))
    assert count > 1
    assert before[-2:, -2:, -2:].all()
    np.testing.assert_array_equal(after > 0, ids == 1 + np.argmax(np.bincount(ids.ravel())[1:]))
    name = f"probabilities/{target.name}"
    assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "masks" / name).read_bytes()
    assert json.loads((tmp_path / "masks" / "prediction.json").read_text())["postprocessing"]["classes"]
    # From Python it is the same.
    trained = load(path, accelerator="cpu")
    np.testing.assert_array_equal(trained.predict(source), after)
    np.testing.assert_array_equal(trained.predict(source, postprocess="none"), before)


def test_masks_with_and_without_rules_are_not_mixed(nnunet_raw, threshold_run, with_island, tmp_path, capsys):
    root = nnunet_raw(cases=6, num_classes=2)
    path, source, output = threshold_run(root, 1.3), with_island(volumes(root)[0]), tmp_path / "masks"
    run(config(str(path), source, output))
    record = output / "prediction.json"
    stored = json.loads(record.read_text())
    assert stored.pop("postprocessing") is None
    record.write_text(json.dumps(stored))  # as it was before there were rules: the same masks
    store_rules(path)
    with pytest.raises(UsageError, match="overwrite=true"):
        run(config(str(path), source, output))
    capsys.readouterr()
    run(config(str(path), source, output, postprocess="none"))
    assert "kept, was there" in capsys.readouterr().out
    (target,) = run(config(str(path), source, output, overwrite=True))
    assert components(target) == 1


def test_rules_of_another_model_are_refused(nnunet_raw, threshold_run, tmp_path):
    root = nnunet_raw(cases=6, num_classes=2)
    path, source = threshold_run(root, 1.3), volumes(root)[0]
    store_rules(path)
    with pytest.raises(UsageError, match="other models") as raised:
        run(config(str(path), source, tmp_path / "masks", checkpoint="step-00000001"))
    assert "run at step 2" in raised.value.why
    assert "run at step 1" in raised.value.why
    assert not (tmp_path / "masks").exists()
    with pytest.raises(UsageError, match="no post-processing"):
        run(config(str(path), source, tmp_path / "masks", postprocess=str(tmp_path / "nowhere.json")))


def test_rules_are_for_masks_that_are_predicted_as_for_the_fit(
    nnunet_raw, threshold_run, with_island, tmp_path, caplog
):
    root = nnunet_raw(cases=6, num_classes=2)
    path, source = threshold_run(root, 1.3), with_island(volumes(root)[0])
    store_rules(path)
    (plain,) = run(config(str(path), source, tmp_path / "plain"))
    assert (components(plain), caplog.text) == (1, "")
    for name, key, line in (
        ("m", {"mirror": True}, "mirror=false"),
        ("p", {"average": "probabilities"}, "average=logits"),
    ):
        (mask,) = run(config(str(path), source, tmp_path / name, **key))
        assert components(mask) == 2
        assert f"fitted with {line}" in caplog.text
        assert json.loads((tmp_path / name / "prediction.json").read_text())["postprocessing"] is None
        with pytest.raises(UsageError, match="predicted otherwise") as raised:
            run(config(str(path), source, tmp_path / f"{name}-path", postprocess=str(path), **key))
        assert raised.value.mend == f"{line}; or postprocess=none"


def test_sizes_of_rules_are_of_the_images_own_voxels(nnunet_raw, threshold_run, with_island, tmp_path):
    """A cube of 3 x 3 x 3 voxels of 0.9 x 1 x 2 mm is 48.6 mm^3, though the file says 0.89999998 mm."""
    root = nnunet_raw(cases=6, num_classes=2, spacing=(0.9, 1.0, 2.0), shape=(24, 24, 16))
    path = threshold_run(root, 1.0, "plan.spacing=[0.9,1.0,2.0]")
    source = with_island(volumes(root)[0], size=3)
    found = {}
    for size in (48.6, 48.7):
        store_rules(path, tmp_path, ClassRule("ball_a", min_mm3=size))
        keys = {"postprocess": str(tmp_path / "postprocessing.json")}
        (target,) = run(config(str(path), source, tmp_path / f"masks-{size}", **keys))
        found[size] = np.asarray(nibabel.load(target).dataobj)
    assert found[48.6][-3:, -3:, -3:].all()
    assert not found[48.7][-3:, -3:, -3:].any()
    assert found[48.7].any()
