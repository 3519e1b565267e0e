"""Plans for the data sets that segkit is made for, and what a user may change."""

import dataclasses
import json
import math

import pytest

from segkit.errors import DataError, UsageError
from segkit.planning.device import DeviceFacts
from segkit.planning.fingerprint import Fingerprint, Intensity
from segkit.planning.make_plan import make_plan, sided, validation_interval
from segkit.planning.plan import Plan
from segkit.planning.text import describe_plan
from segkit.types import Labels

LAPTOP = DeviceFacts("cpu", "a laptop", 8 * 2**30, 2, native_bf16=True)
OLD_LAPTOP = dataclasses.replace(LAPTOP, native_bf16=False)
GPU = DeviceFacts("cuda", "a GPU", 24 * 2**30, 16, native_bf16=True)
LABELS = Labels(("background", "anterior", "posterior"), (0, 1, 2))


def fingerprint(shape=(35, 50, 36), cases=32, *, spacing=None, channels=("MRI",), relative=1.0, unit="mm"):
    intensity = Intensity(
        mean=50.0,
        std=20.0,
        minimum=-100.0,
        maximum=900.0,
        median=45.0,
        percentile_00_5=-60.0,
        percentile_99_5=180.0,
    )
    return Fingerprint(
        channels=channels,
        spacings=(spacing or (1.0,) * len(shape),) * cases,
        shapes=(shape,) * cases,
        relative_size=relative,
        class_voxels=(1000, 100, 100),
        class_cases=(cases, cases, cases),
        intensities=(intensity,) * len(channels),
        unit=unit,
    )


HIPPOCAMPI = fingerprint()


def test_a_laptop_gets_the_small_plan_for_the_hippocampi():
    plan = make_plan(HIPPOCAMPI, LABELS, device=LAPTOP)
    assert plan.name == "small"
    assert plan.patch_size == (40, 56, 40)
    assert plan.batch_size == 2
    assert plan.features == (16, 32, 64, 128)
    assert plan.precision == "bf16-mixed"
    assert (plan.learning_rate, plan.ema_decay) == (4e-3, 0.99)


@pytest.mark.parametrize(("speedup", "precision"), [(1.9, "bf16-mixed"), (1.05, "32-true"), (0.67, "32-true")])
def test_bfloat16_is_taken_where_it_was_measured_to_be_faster(speedup, precision):
    """The flag alone does not tell: processors have it on which bfloat16 is the slower of the two."""
    plan = make_plan(HIPPOCAMPI, LABELS, device=dataclasses.replace(LAPTOP, bf16_speedup=speedup))
    assert plan.precision == precision
    assert f"{speedup:.2g} times as fast" in plan.reasons["precision"]
    assert plan.channels_last == (precision == "bf16-mixed")


def test_a_laptop_gets_something_it_can_train_for_brains_and_for_pictures():
    brains = make_plan(fingerprint((127, 160, 126), 3, channels=("FLAIR", "T1"), relative=0.35), LABELS, device=LAPTOP)
    assert 0.7 * 64**3 < math.prod(brains.patch_size) <= 64**3
    assert brains.batch_size == 2
    assert all(channel.masked for channel in brains.normalisation)
    nuclei = make_plan(fingerprint((256, 256), 200, unit="pixel"), LABELS, device=LAPTOP)
    assert (nuclei.patch_size, nuclei.batch_size) == ((256, 256), 2)
    assert nuclei.batch_dice


def test_precision_and_tiles_a_pass_follow_the_device_and_nothing_else_does():
    native, emulated = (make_plan(HIPPOCAMPI, LABELS, device=d, name="small") for d in (LAPTOP, OLD_LAPTOP))
    assert (native.precision, emulated.precision) == ("bf16-mixed", "32-true")
    gpu = make_plan(HIPPOCAMPI, LABELS, device=GPU, name="small")
    for field in dataclasses.fields(Plan):
        if field.name not in ("precision", "tile_batch", "reasons"):
            assert getattr(gpu, field.name) == getattr(emulated, field.name), field.name
    assert (native.tile_batch, emulated.tile_batch, gpu.tile_batch) == (1, 2, gpu.batch_size)
    larger = make_plan(HIPPOCAMPI, LABELS, device=GPU, name="small", overrides={"batch_size": 7})
    assert larger.tile_batch == 7
    asked = make_plan(HIPPOCAMPI, LABELS, device=LAPTOP, name="small", overrides={"tile_batch": 3})
    assert asked.tile_batch == 3


def test_auto_takes_base_on_a_gpu_and_small_on_a_tiny_one():
    assert make_plan(HIPPOCAMPI, LABELS, device=GPU).name == "base"
    small_gpu = dataclasses.replace(GPU, memory_bytes=4 * 2**30)
    assert make_plan(HIPPOCAMPI, LABELS, device=small_gpu).name == "small"


def test_nnunet_rung_is_nnunets_plan():
    plan = make_plan(fingerprint((36, 50, 35), 260), LABELS, device=LAPTOP, name="nnunet")
    assert (plan.patch_size, plan.batch_size) == ((40, 56, 40), 9)
    assert plan.features == (32, 64, 128, 256)
    assert (plan.max_epochs, plan.steps_per_epoch, plan.learning_rate) == (1000, 250, 1e-2)
    assert plan.batch_dice is False


def test_every_field_that_is_decided_has_a_reason():
    plan = make_plan(HIPPOCAMPI, LABELS, device=LAPTOP)
    known = {"dimensions", "channels", "labels", "unit", "reasons"}
    assert {field.name for field in dataclasses.fields(Plan)} - known <= set(plan.reasons)
    text = describe_plan(plan)
    assert all(reason.split(":")[0][:20] in text for reason in plan.reasons.values())


def test_json_round_trip_through_text():
    ct = make_plan(fingerprint(channels=("CT", "other")), LABELS, device=LAPTOP)
    assert Plan.from_json(json.loads(json.dumps(ct.to_json()))) == ct


def test_ct_is_clipped_and_scaled_by_the_data_sets_foreground():
    ct, other, raw = make_plan(fingerprint(channels=("CT", "PET", "noNorm")), LABELS, device=LAPTOP).normalisation
    assert (ct.scheme, ct.low, ct.high, ct.mean, ct.std) == ("ct", -60.0, 180.0, 50.0, 20.0)
    assert (other.scheme, other.masked) == ("zscore", False)
    assert raw.scheme == "none"


def test_overrides_win_and_say_so():
    given = {"patch_size": [32, 32, 24], "batch_size": 7, "max_epochs": 3, "spacing": None, "normalisation": ["ct"]}
    plan = make_plan(HIPPOCAMPI, LABELS, device=LAPTOP, overrides=given)
    assert plan.patch_size == (32, 32, 24)
    assert (plan.batch_size, plan.max_epochs) == (7, 3)
    assert plan.normalisation[0].scheme == "ct"
    assert plan.spacing == (1.0, 1.0, 1.0)
    assert plan.reasons["batch_size"] == plan.reasons["normalisation"] == "given by the user"
    assert plan.reasons["spacing"] != "given by the user"


def test_a_larger_patch_brings_a_smaller_batch():
    batches = [
        make_plan(fingerprint((90, 90, 90)), LABELS, device=LAPTOP, overrides={"patch_size": size}).batch_size
        for size in ([16] * 3, [32] * 3, [48] * 3)
    ]
    assert batches == sorted(batches, reverse=True)
    assert batches[0] > batches[-1]


def test_features_set_the_depth():
    plan = make_plan(HIPPOCAMPI, LABELS, device=LAPTOP, overrides={"features": [8, 24, 40]})
    assert plan.features == (8, 24, 40)
    assert len(plan.strides) == len(plan.kernel_sizes) == len(plan.blocks_per_stage) == 3


@pytest.mark.parametrize(
    "given",
    [
        {"features": [8] * 9},
        {"patch_size": [32, 32]},
        {"spacing": [1, 1, 0]},
        {"batch_size": 0},
        {"colour": "red"},
        {"normalisation": ["zscore", "zscore"]},
        {"strides": [[1, 1, 1], [2, 2, 2]], "features": [8, 16, 32]},
    ],
)
def test_overrides_that_do_not_fit_are_refused(given):
    with pytest.raises(UsageError, match=r"plan|stages"):
        make_plan(HIPPOCAMPI, LABELS, device=LAPTOP, overrides=given)


def test_unknown_rung_is_refused():
    with pytest.raises(UsageError, match="no plan named 'huge'"):
        make_plan(HIPPOCAMPI, LABELS, device=LAPTOP, name="huge")


def test_no_foreground_is_refused():
    empty = dataclasses.replace(HIPPOCAMPI, class_voxels=(1000, 0, 0), intensities=())
    with pytest.raises(DataError, match="no foreground in any case"):
        make_plan(empty, LABELS, device=LAPTOP)


@pytest.mark.parametrize("name", ["left ventricle", "Kidney_R", "lh-cortex", "hippocampusLeft", "lung right lobe 2"])
def test_sided_names(name):
    assert sided((name,)) == (name,)


@pytest.mark.parametrize("name", ["anterior", "liver", "bright spot", "cleft", "class_1", "leftover tissue"])
def test_names_without_a_side(name):
    assert sided((name,)) == ()


def test_sided_classes_are_not_mirrored_along_left_right():
    labels = Labels(("background", "left kidney", "right kidney"), (0, 1, 2))
    assert make_plan(HIPPOCAMPI, LABELS, device=GPU).flip_axes == (0, 1, 2)
    assert make_plan(HIPPOCAMPI, labels, device=GPU).flip_axes == (1, 2)
    assert make_plan(HIPPOCAMPI, labels, device=GPU, laterality="none").flip_axes == (0, 1, 2)
    assert make_plan(HIPPOCAMPI, LABELS, device=GPU, laterality="sided").flip_axes == (1, 2)
    picture = fingerprint((256, 256), unit="pixel")
    assert make_plan(picture, labels, device=GPU).flip_axes == ()


def test_the_small_rung_mirrors_volumes_only_where_a_patient_has_a_mirror_image():
    labels = Labels(("background", "left kidney", "right kidney"), (0, 1, 2))
    assert make_plan(HIPPOCAMPI, LABELS, device=LAPTOP).flip_axes == (0,)
    assert make_plan(HIPPOCAMPI, labels, device=LAPTOP).flip_axes == ()
    assert make_plan(HIPPOCAMPI, labels, device=LAPTOP, laterality="none").flip_axes == (0,)
    picture = fingerprint((256, 256), unit="pixel")
    assert make_plan(picture, LABELS, device=LAPTOP).flip_axes == (0, 1)
    assert make_plan(picture, labels, device=LAPTOP).flip_axes == ()


def test_a_length_in_steps_is_told_as_epochs():
    plan = make_plan(HIPPOCAMPI, LABELS, device=LAPTOP, max_steps=1200)
    assert plan.max_steps == plan.max_epochs * plan.steps_per_epoch == 1200
    assert "trainer.max_steps=1200" in plan.reasons["max_epochs"]
    assert plan.validation_every_n_epochs == 2
    kept = make_plan(HIPPOCAMPI, LABELS, device=LAPTOP, max_steps=1200, overrides={"validation_every_n_epochs": 5})
    assert kept.validation_every_n_epochs == 5


def test_channels_come_last_where_the_precision_in_use_wants_them():
    assert make_plan(HIPPOCAMPI, LABELS, device=LAPTOP).channels_last
    assert not make_plan(HIPPOCAMPI, LABELS, device=LAPTOP, overrides={"precision": "32-true"}).channels_last
    assert not make_plan(HIPPOCAMPI, LABELS, device=LAPTOP, overrides={"channels_last": False}).channels_last


def test_an_average_of_the_weights_by_the_rung_or_as_asked():
    assert make_plan(HIPPOCAMPI, LABELS, device=GPU).ema_decay == 0
    assert make_plan(HIPPOCAMPI, LABELS, device=LAPTOP, overrides={"ema_decay": 0.0}).ema_decay == 0
    assert Plan.from_json(make_plan(HIPPOCAMPI, LABELS, device=LAPTOP).to_json()).ema_decay == 0.99


def test_validation_takes_at_most_a_fifth_of_the_time():
    plan = make_plan(HIPPOCAMPI, LABELS, device=LAPTOP, overrides={"max_epochs": 10000, "steps_per_epoch": 10})
    for cases in (1, 5, 40, 200):
        every = validation_interval(plan, (100.0, 100.0, 100.0), num_tuning=cases)
        tiles = 4 * 3 * 4
        validation, training = cases * tiles, every * 10 * plan.batch_size * 3
        assert validation / (validation + training) <= 0.2
        if every > 1:
            shorter = training * (every - 1) / every
            assert validation / (validation + shorter) > 0.2


def test_validation_happens_at_least_four_times():
    plan = make_plan(HIPPOCAMPI, LABELS, device=LAPTOP, overrides={"max_epochs": 8, "steps_per_epoch": 1})
    assert validation_interval(plan, (400.0, 400.0, 400.0), num_tuning=100) == 2
    assert make_plan(HIPPOCAMPI, LABELS, device=LAPTOP, overrides={"max_epochs": 1}).validation_every_n_epochs == 1
