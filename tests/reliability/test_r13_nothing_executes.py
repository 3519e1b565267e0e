"""R13: loading never executes code.

Checkpoints, run folders, tables and archives from others are data. Each file of a corpus of evil ones is put in its
place in a real run folder, with checksums that fit, and opened by status, load, evaluate, predict and a resumed
training: no canary appears, and what is refused is refused by name with exit code 2, 65 or 74. Only segkit's, MONAI's
and torch's networks, losses, optimizers and schedules are built from a run folder; `trust=true` is the only door.
"""

import ast
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.reliability.evil_files import PICKLES, WEIGHTS, Evil, forge, signed
from tests.workflows.conftest import threshold_run

import segkit
from segkit.configuration import main
from segkit.errors import SegkitError, StorageError, exit_code
from segkit.runs.checkpoints import read_checkpoint
from segkit.runs.manifest import MANIFEST, MODEL, OPTIMIZER, STATE
from segkit.workflows import status, train
from segkit.workflows.loading import load

__all__ = ["threshold_run"]

REFUSED = (2, 65, 74)
SOURCE = Path(segkit.__file__).parent


_template: list[Path] = []


@pytest.fixture
def images(nnunet_raw: Callable[..., Path], threshold_run: Callable[..., Path]) -> Path:
    """The data set of a run that is made once and copied for each test."""
    if not _template:
        root = nnunet_raw(cases=5, num_classes=2, shape=(8, 10, 7))
        _template.extend([root, threshold_run(root, 1.3)])
    return _template[0]


@pytest.fixture
def run(images: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_template[1], tmp_path / "copied" / "run"))


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "something was executed"


@pytest.fixture
def open_all(
    run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: Callable[[int, int], int]
) -> Callable[..., str]:
    """Open the run by status, load, predict and (at full size) evaluate; all but status must refuse.

    Returns what was said.
    """

    def opened(*, refused: bool = True) -> str:
        (facts,) = status.run({"run": str(run), "json": True, "paths": {"runs": "runs"}})
        assert json.loads(capsys.readouterr().out) == facts
        status.describe(facts)
        codes: list[int] = []
        try:
            load(run, accelerator="cpu")
            codes.append(0)
        except SegkitError as error:
            codes.append(int(exit_code(error)))
        cpu = "trainer.accelerator=cpu"
        image = sorted((images / "imagesTr").iterdir())[0]
        if size(0, 1):
            codes.append(main("evaluate", [f"run={run}", cpu, "overlays=0"]))
        codes.append(main("predict", [f"run={run}", f"input={image}", f"output={tmp_path / 'masks'}", cpu]))
        assert all(code in (REFUSED if refused else (0,)) for code in codes), codes
        err = capsys.readouterr().err
        assert "Traceback" not in err
        assert "weights_only" not in err  # torch's advice to read the file without protection
        return err

    return opened


def _newest(run: Path) -> Path:
    return run / "checkpoints" / "step-00000002"


@pytest.mark.parametrize("name", list(WEIGHTS))
def test_evil_weights(run: Path, canary: Path, open_all: Callable[..., str], name: str) -> None:
    for folder in (run / "checkpoints").glob("step-*"):
        forge(folder, MODEL, WEIGHTS[name], canary)
    assert "model.safetensors" in open_all() or name == "other tensors"


@pytest.mark.parametrize("file", [OPTIMIZER, STATE])
def test_prediction_does_not_even_open_what_only_training_needs(
    run: Path, canary: Path, open_all: Callable[..., str], file: str
) -> None:
    for folder in (run / "checkpoints").glob("step-*"):
        forge(folder, file, PICKLES["reduce"], canary)
    open_all(refused=False)


EVERY = [
    *((OPTIMIZER, name, make) for name, make in PICKLES.items()),
    *((STATE, name, make) for name, make in PICKLES.items()),
    *((MODEL, name, make) for name, make in WEIGHTS.items() if name != "other tensors"),
]


def _require_refusal(error: Exception, file: str, name: str) -> None:
    assert isinstance(error, StorageError), (file, name, error)
    assert file in str(error), name
    assert "weights_only" not in str(error)  # torch's advice to read the file without protection


def test_a_checkpoint_is_read_without_executing(run: Path, tmp_path: Path, canary: Path) -> None:
    """What a resumed training reads, all of the corpus in each of the places."""
    for number, (file, name, make) in enumerate(EVERY):
        folder = shutil.copytree(_newest(run), tmp_path / f"checkpoint-{number}")
        forge(folder, file, make, canary)
        with pytest.raises(StorageError) as caught:
            read_checkpoint(folder)
        _require_refusal(caught.value, file, name)
        assert not canary.exists(), (file, name)


def test_a_resumed_training_refuses_them(
    run_config: Callable[..., dict[str, Any]], tmp_path: Path, canary: Path, size: Callable[[int, int], int]
) -> None:
    train.run(run_config("run", "trainer.steps_per_epoch=1", "trainer.max_epochs=1"))
    whole, folder = tmp_path / "whole", tmp_path / "runs" / "run"
    shutil.copytree(folder, whole)
    for file, name, make in EVERY[:: size(len(PICKLES), 1)]:
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        for checkpoint in (folder / "checkpoints").glob("step-*"):
            forge(checkpoint, file, make, canary)
        with pytest.raises(SegkitError) as caught:
            train.run(run_config("run", "trainer.steps_per_epoch=1", "trainer.max_epochs=2"))
        _require_refusal(caught.value, file, name)
        assert not canary.exists(), (file, name)


MANIFESTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "files elsewhere": lambda m: m["files"].update({"../../../secret": m["files"].pop(STATE)}),
    "files from the root": lambda m: m["files"].update({"/etc/passwd": m["files"].pop(STATE)}),
    "no number": lambda m: m["entry"].update(step="__import__('os')"),
    "endless": lambda m: m["entry"].update(score=10**400),
    "size of a word": lambda m: m["files"][STATE].update(bytes="1"),
    "contents": lambda m: m.update(contents=7),
    "files": lambda m: m.update(files=[1]),
    "format": lambda m: m.update(format=[1]),
}


@pytest.mark.parametrize("name", list(MANIFESTS))
def test_evil_manifests(run: Path, canary: Path, open_all: Callable[..., str], name: str) -> None:
    for folder in (run / "checkpoints").glob("step-*"):
        manifest = json.loads((folder / MANIFEST).read_text())
        del manifest["checksum"]
        MANIFESTS[name](manifest)
        (folder / MANIFEST).write_text(signed(manifest))
    open_all()


def test_links_in_a_checkpoint_are_not_followed(
    run: Path, canary: Path, tmp_path: Path, open_all: Callable[..., str]
) -> None:
    for folder in (run / "checkpoints").glob("step-*"):
        shutil.move(folder / MODEL, tmp_path / f"{folder.name}-elsewhere")
        (folder / MODEL).symlink_to(tmp_path / f"{folder.name}-elsewhere")
    assert "a link stands in its place" in open_all()


TEXTS: dict[str, bytes] = {
    "nested 100,000 deep": b'{"a": ' * 100_000,
    "python tag": b"!!python/object/apply:os.system ['touch CANARY']",
    "python name": b"network: !!python/name:os.system",
    "laughs": b"a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (98 + k, 98 + k, b",".join([b"*%c" % (97 + k)] * 10)) for k in range(12)),
    "itself": b"a: &a {network: *a}",
    "not text": bytes(range(256)) * 10,
    "a list": b"[]",
    "large": b"a: '" + b"x" * (20 << 20) + b"'",
}


@pytest.mark.parametrize("name", list(TEXTS))
@pytest.mark.parametrize("file", ["config.yaml", "plan.json"])
def test_evil_configurations_and_plans(
    run: Path, canary: Path, open_all: Callable[..., str], file: str, name: str
) -> None:
    (run / file).write_bytes(TEXTS[name].replace(b"CANARY", os.fsencode(canary)))
    assert file in open_all()


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("plan.json", "patch_size", [10**9, 10**9, 10**9]),
        ("plan.json", "patch_size", "__import__('os')"),
        ("plan.json", "labels", {"names": 3, "ids": 4}),
        ("plan.json", "tile_batch", 10**30),
        ("plan.json", "normalisation", [{"scheme": "eval"}]),
        ("plan.json", "surprise", 1),
        ("plan.json", "spacing", [float("nan"), 1, 1]),
        ("config.yaml", "network", ["os.system"]),
        ("config.yaml", "network", {"_target_": ["os", "system"]}),
        ("config.yaml", "network", {"_target_": "torch.nn.Conv3d", "args": "x"}),
        ("config.yaml", "network", {"_target_": "torch.nn.Conv3d", 3: 4}),
        ("config.yaml", "network", {"_target_": "torch.nn.Linear", "in_features": 10**9, "out_features": 10**9}),
        ("config.yaml", "score", None),
        ("config.yaml", "paths", "x"),
        ("config.yaml", "data", {"root": {"_target_": "os.getcwd"}}),
    ],
)
def test_values_of_the_wrong_kind(
    run: Path, canary: Path, open_all: Callable[..., str], file: str, key: str, value: object
) -> None:
    path = run / file
    content = yaml.safe_load(path.read_text())
    content[key] = value
    path.write_text(json.dumps(content) if file.endswith("json") else yaml.safe_dump(content))
    open_all()


TARGETS = (
    ("os.system", {"command": "touch CANARY"}),
    ("builtins.eval", {"source": "open('CANARY', 'w')"}),
    ("builtins.exec", {"source": "open('CANARY', 'w')"}),
    ("subprocess.Popen", {"args": {"args": ["touch", "CANARY"]}}),
    ("torch.load", {"f": "PICKLE", "weights_only": False}),
    ("torch.hub.load", {"repo_or_dir": "HUB", "model": "evil", "source": "local"}),
    ("torch.utils.cpp_extension.load", {"name": "x", "sources": ["x.cpp"]}),
    ("torch.utils.model_zoo.load_url", {"url": "file:///x"}),
    ("torch.jit.load", {"f": "PICKLE"}),
    ("torch.package.PackageImporter", {"file_or_buffer": "PICKLE"}),
    ("torch.serialization.os.system", {"command": "touch CANARY"}),
    ("torch.nn.modules.module.torch.load", {"f": "PICKLE", "weights_only": False}),
    ("torch.nn.utils.parametrize.torch.os.system", {"command": "touch CANARY"}),
    ("monai.bundle.run", {"config_file": "BUNDLE"}),
    ("monai.bundle.ConfigParser", {"config": {"a": "$import os"}}),
    ("monai.bundle.load", {"name": "x"}),
    ("monai.utils.module.instantiate", {"__path": "os.system", "__mode": "default"}),
    ("monai.losses.perceptual.PerceptualLoss", {"spatial_dims": 3, "cache_dir": "HUB"}),
    ("monai.losses.PerceptualLoss", {"spatial_dims": 3, "network_type": "medicalnet_resnet10_23datasets"}),
    ("monai.networks.nets.HoVerNet", {"pretrained_url": "file:///x"}),
    ("monai.networks.nets.EfficientNetBN", {"model_name": "efficientnet-b0"}),
    ("monai.networks.layers.gmm.GaussianMixtureModel", {}),
    ("segkit.workflows.train.run", {"config": {}}),
    ("segkit.workflows.masks.write_mask", {"path": "CANARY"}),
    ("segkit.runs.files.atomic_write", {"path": "CANARY", "content": "x"}),
    ("segkit.networks.memory_format.to_device", {}),
    ("segkit.configuration.instantiate.make_factory", {"node": {}}),
    ("segkit.losses.dice.torch.load", {"f": "PICKLE", "weights_only": False}),
    ("torch.nn.Sequential", {"args": {"inner": {"_target_": "os.system", "command": "touch CANARY"}}}),
    ("evil.Network", {}),
)


@pytest.mark.parametrize("target", range(len(TARGETS)), ids=[target for target, _ in TARGETS])
def test_targets_that_execute(run: Path, canary: Path, tmp_path: Path, monkeypatch, target: int, capsys, size) -> None:
    """`torch.` and `monai.` hold as much that runs code as `os.` does; none of it is called, or even imported."""
    hub = tmp_path / "hub"
    hub.mkdir()
    touch = f"open({str(canary)!r}, 'w').close()\n"
    (hub / "hubconf.py").write_text(f"{touch}def evil(): {touch}")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Evil(canary)))
    (tmp_path / "evil.py").write_text(touch)
    monkeypatch.syspath_prepend(tmp_path)
    name, arguments = TARGETS[target]
    places = {"CANARY": canary, "PICKLE": tmp_path / "pickle.pt", "HUB": hub, "BUNDLE": tmp_path / "b.json"}
    text = yaml.safe_dump({"_target_": name, **arguments})
    for word, place in places.items():
        text = text.replace(word, str(place))
    config = yaml.safe_load((run / "config.yaml").read_text())
    for part in ("network", "loss", "optimizer", "scheduler", "augmentation"):
        config[part] = yaml.safe_load(text)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    status.run({"run": str(run), "json": False, "paths": {"runs": "runs"}})
    for verb in size(("evaluate", "predict")[target % 2 :][:1], ("evaluate", "predict")):
        words = {"evaluate": ["overlays=0"], "predict": [f"input={hub}", f"output={tmp_path / 'out'}"]}[verb]
        assert main(verb, [f"run={run}", "trainer.accelerator=cpu", *words]) == 2
        err = capsys.readouterr().err
        assert "trust=true" in err
        assert "Traceback" not in err


def test_trust_is_the_door(run: Path, tmp_path: Path, images: Path, monkeypatch) -> None:
    """What the test above refuses is built where the user says so: the refusals were no accident."""
    (tmp_path / "theirs.py").write_text(
        f"import torch\nopen({str(tmp_path / 'imported')!r}, 'w').close()\nclass Net(torch.nn.Conv3d): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["network"]["_target_"] = "theirs.Net"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    words = [f"run={run}", f"input={images / 'imagesTr'}", f"output={tmp_path / 'out'}", "trainer.accelerator=cpu"]
    assert main("predict", words) == 2
    assert not (tmp_path / "imported").exists()
    assert main("predict", [*words, "trust=true"]) == 0
    assert (tmp_path / "imported").exists()


# -- the source itself -------------------------------------------------------------------------------------

FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "marshal.loads", "marshal.load", "shelve.open", "dill.load", "dill.loads", "joblib.load", "cloudpickle.load",
    "cloudpickle.loads", "pandas.read_pickle", "torch.hub.load", "torch.jit.load", "runpy.run_path",
    "runpy.run_module", "yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all", "yaml.unsafe_load_all",
}  # fmt: skip
FORBIDDEN_METHODS = {"extractall", "extract", "unpack_archive"}


def _calls() -> Iterator[tuple[str, ast.Call, str]]:
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(SOURCE)}:{node.lineno}", node, ast.unparse(node.func)


def _keyword(call: ast.Call, name: str) -> object:
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


def faults_of(where: str, call: ast.Call, name: str) -> Iterator[str]:
    if name in FORBIDDEN_CALLS or name.rpartition(".")[2] in FORBIDDEN_METHODS:
        yield f"{where} calls {name}"
    if name.endswith("torch.load") and _keyword(call, "weights_only") != "True":
        yield f"{where} loads without weights_only=True"
    if name in ("np.load", "numpy.load") and _keyword(call, "allow_pickle") != "False":
        yield f"{where} loads without allow_pickle=False"
    if _keyword(call, "shell") not in (None, "False"):
        yield f"{where} starts a shell"
    if name.startswith("yaml.") and _keyword(call, "Loader") not in (None, "_LOADER"):
        yield f"{where} reads YAML by {_keyword(call, 'Loader')}"


def test_the_package_holds_no_call_that_executes_data() -> None:
    calls = list(_calls())
    assert len(calls) > 1000  # the walk sees the package
    assert [fault for call in calls for fault in faults_of(*call)] == []


def test_every_yaml_loader_is_a_safe_one() -> None:
    from segkit.configuration.tree import _LOADER as tree_loader
    from segkit.runs.untrusted import _LOADER as run_loader

    safe = (yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    assert tree_loader in safe
    assert run_loader in safe


@pytest.mark.parametrize(
    "line",
    ["torch.load(p)", "torch.load(p, weights_only=False)", "pickle.loads(b)", "yaml.load(t, Loader=yaml.Loader)",
     "np.load(p)", "np.load(p, allow_pickle=True)", "os.system('x')", "subprocess.run('x', shell=True)", "eval('1')",
     "zipfile.ZipFile(p).extractall()", "yaml.compose(t, Loader=yaml.UnsafeLoader)", "shutil.unpack_archive(p)"],
)  # fmt: skip
def test_the_walk_finds_each_of_them(line: str) -> None:
    calls = [node for node in ast.walk(ast.parse(line)) if isinstance(node, ast.Call)]
    assert [fault for call in calls for fault in faults_of("here", call, ast.unparse(call.func))]
