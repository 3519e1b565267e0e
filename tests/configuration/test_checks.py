import pytest

from segkit.configuration import compose, config_dir
from segkit.errors import ExitCode, UsageError, exit_code


def complaint(*overrides, verb="train"):
    with pytest.raises(UsageError) as caught:
        compose(verb, overrides)
    return str(caught.value)


NETWORKS = ", ".join(sorted(path.stem for path in (config_dir() / "network").glob("*.yaml")))
DOZEN = {
    "optimzer.lr=0.1": "unknown key optimzer.lr. Did you mean optimizer.lr?",
    "data.split.fould=1": "unknown key data.split.fould. Did you mean data.split.fold?",
    "lr=0.1": "unknown key lr. Did you mean optimizer.lr?",
    "batchsize=2": "unknown key batchsize. Did you mean plan.batch_size?",
    "netwrok=unet": "unknown key netwrok. Did you mean network?",
    "network=unte": f"network has no choice 'unte'; it has {NETWORKS}. Did you mean network=unet?",
    "network.decoder_convolutions=2": "It is a key of network=residual_unet.",
    "run=runs/x": "unknown key run. It is a key of segkit.calibrate.",
    "trainer.max_epochs=many": "'many' does not fit; expected int >= 1 or null.",
    "data.foreground_oversampling=2": "2 does not fit; expected float in [0, 1].",
    "plan.patch_size=[32,0]": "[32, 0] does not fit; expected list of int >= 1 or null.",
    "data.workers=-1": "-1 does not fit; expected int >= 0 or one of auto.",
    "deterministic=yes": "'yes' does not fit; expected bool. Write true or false.",
    "extra_epochs=null": "null does not fit; expected int >= 0.",
    "select=bset": "'bset' does not fit; expected one of best_if_better|best|last. Did you mean select=best?",
    "plan.spacing=[1,2": "malformed value; expected list of float > 0 or null.",
    "nonsense": "not of the form key=value.",
    "=3": "malformed key.",
    "seed=2": "seed is set twice, first by seed=1. Keep one of them.",
    "+trainer.devices=2": "keys are set, never added. Write trainer.devices=2.",
    "++trainer.max_epoch=2": "never added, and unknown key trainer.max_epoch. Did you mean trainer.max_epochs?",
    "~score": "keys are never removed.",
    "trainer=5": "trainer is a section; its keys are trainer.max_epochs,",
    "loss@network=dice": "a group has one place in the configuration",
    "validation.step=0.5,0.7": "several values make a sweep. For one run each give --multirun.",
    "plan.features=8,16": "several values make a sweep. For a list write plan.features=[8,16]; for one run each",
    "optimizer.nonsense=1": "unknown key optimizer.nonsense. Its section has optimizer._target_, optimizer.lr,",
    "hydra.run.dir=x": "unknown key hydra.run.dir.",
    "tracking=null": "tracking has no choice 'null'; it has mlflow, none.",
}


def test_all_problems_are_named_at_once_in_the_order_typed():
    text = complaint("seed=1", *DOZEN)
    lines = text.splitlines()
    assert lines[0] == f"{len(DOZEN)} problems with the configuration of segkit.train"
    for number, (override, message) in enumerate(DOZEN.items(), start=1):
        assert lines[number].startswith(f"{number:>4}  {override}: "), lines[number]
        assert message in lines[number]


def test_no_message_advises_a_plus():
    assert "+" not in complaint("seed=1", *(override for override in DOZEN if "+" not in override))


def test_the_exit_code_is_that_of_usage():
    with pytest.raises(UsageError) as caught:
        compose("train", ["sed=1"])
    assert exit_code(caught.value) == ExitCode.USAGE == 2


def test_what_must_be_given_is_asked_for_with_its_meaning():
    text = complaint(verb="predict")
    assert text.startswith("3 problems")
    assert "run: must be given. path or list of path. Run folder" in text


def test_a_key_that_was_misspelt_is_not_asked_for_again():
    text = complaint("rnu=a", "input=b", "output=c", verb="predict")
    assert text.startswith("1 problem ")
    assert "Did you mean run?" in text


def test_a_data_folder_given_to_the_group_is_understood():
    assert "Did you mean data.root=/my/images?" in complaint("data=/my/images")


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("run_name=001", "001"),
        ("run_name=true", "true"),
        ("run_name='a b'", "a b"),
        ("data.root=/a b/c,d/e=f(1)/[g]", "/a b/c,d/e=f(1)/[g]"),
        ("data.groups=regex:(\\d+)_.*", "regex:(\\d+)_.*"),
        ("trainer.precision=32-true", "32-true"),
        ("trainer.max_epochs=null", None),
        ("optimizer.lr=1e-3", 1e-3),
        ("plan.patch_size=[16,16]", [16, 16]),
        ("data.split.tuning=equal", "equal"),
        ("data.root=${oc.env:SEGKIT_TEST_HOME}/x", "/home/x"),
        ("loss._target_=their.module.Loss", "their.module.Loss"),
    ],
)
def test_good_values_arrive_as_meant(override, value, monkeypatch):
    monkeypatch.setenv("SEGKIT_TEST_HOME", "/home")
    found = compose("train", [override])
    for part in override.partition("=")[0].split("."):
        found = found[part]
    assert found == value
    assert type(found) is type(value)


def test_keys_below_an_open_dict_are_free():
    config = compose("train", ["loss=custom", "loss._target_=a.B", "loss.args.alpha=1", "loss.args.deep.er=[a,2]"])
    assert config["loss"] == {"_target_": "a.B", "args": {"alpha": 1, "deep": {"er": ["a", 2]}}}
    assert "unknown key loss.args" in complaint("loss.args.alpha=1")
    assert "Write loss.args.alpha=1" in complaint("loss=custom", "loss._target_=a.B", "+loss.args.alpha=1")


def test_a_part_of_a_recipe_can_be_left_out():
    config = compose("train", ["augmentation.intensity.noise=null"])
    assert config["augmentation"]["intensity"]["noise"] is None
    assert "is a section" in complaint("augmentation.intensity=null")


def test_a_bad_interpolation_is_a_problem():
    assert "trainer.devices" in complaint("trainer.devices=${nowhere.to.be.found}")
    assert "'runs' does not fit; expected int >= 1." in complaint("trainer.devices=${paths.runs}")
