"""The rules of the house that a machine can hold."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = sorted((ROOT / "src").rglob("*.py"))
PYTHON = [*SOURCE, *sorted((ROOT / "tests").rglob("*.py"))]
MAX_FILE, MAX_CLASS = 400, 250
NOTHING_SAID = {"utils", "util", "common", "helpers", "helper", "misc", "tools", "stuff"}


def _name(path):
    return str(path.relative_to(ROOT))


def _calls(tree):
    """(dotted name, call) of every call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def dangerous(source):
    """What in a source runs code that a file brings along."""
    found = []
    tree = ast.parse(source)
    for name, call in _calls(tree):
        keywords = {k.arg: k.value for k in call.keywords}
        where = f"line {call.lineno}: {ast.unparse(call)[:80]}"
        weights_only = keywords.get("weights_only")
        if name.endswith("torch.load") and not (isinstance(weights_only, ast.Constant) and weights_only.value is True):
            found.append(where)
        if name in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load"):
            found.append(where)
        if name.partition(".")[0] in ("pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"):
            found.append(where)
        allow = keywords.get("allow_pickle")
        if allow is not None and not (isinstance(allow, ast.Constant) and allow.value is False):
            found.append(where)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "dill", "cloudpickle", "joblib", "marshal"):
            found.append(f"line {node.lineno}: from {node.module} import ...")
    return found


@pytest.mark.parametrize(
    ("source", "refused"),
    [
        ("torch.load(p)", True),
        ("torch.load(p, weights_only=False)", True),
        ("torch.load(p, weights_only=flag)", True),
        ("torch.load(p, map_location='cpu', weights_only=True)", False),
        ("yaml.load(t, Loader=yaml.Loader)", True),
        ("yaml.safe_load(t)", False),
        ("pickle.loads(b)", True),
        ("from pickle import loads", True),
        ("np.load(p, allow_pickle=True)", True),
        ("np.load(p, allow_pickle=False)", False),
        ("eval('1')", True),
        ("model.eval()", False),
    ],
)
def test_the_search_for_dangerous_calls_finds_them(source, refused):
    assert bool(dangerous(source)) == refused


def test_no_file_brings_code_to_run():
    found = {_name(path): dangerous(path.read_text()) for path in SOURCE}
    assert {name: calls for name, calls in found.items() if calls} == {}


def test_files_are_short():
    lengths = {_name(path): len(path.read_text().splitlines()) for path in PYTHON}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FILE} == {}


def test_classes_are_short():
    long = {}
    for path in SOURCE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.end_lineno - node.lineno + 1 > MAX_CLASS:
                long[f"{_name(path)}: {node.name}"] = node.end_lineno - node.lineno + 1
    assert long == {}


def test_names_say_something():
    assert [_name(path) for path in PYTHON if path.stem in NOTHING_SAID or path.parent.name in NOTHING_SAID] == []


def test_nothing_imports_the_package_root():
    """Below the doors: `import segkit`, or `from segkit import name` with a name that is no module, asks the root."""
    modules = {path.stem for path in (ROOT / "src/segkit").iterdir()}
    found = []
    for path in SOURCE:
        if path == ROOT / "src/segkit/cli.py":  # the console script stands beside the root
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            root = isinstance(node, ast.Import) and any(alias.name == "segkit" for alias in node.names)
            names = isinstance(node, ast.ImportFrom) and node.module == "segkit"
            if root or (names and any(alias.name not in modules for alias in node.names)):
                found.append(f"{_name(path)}:{node.lineno}")
    assert found == []


def test_every_test_file_is_named_after_what_it_tests():
    """tests/x/test_y.py tests src/segkit/x/y.py or a folder y, or benchmarks/y.py; tests of the whole stand apart."""
    strays = []
    for path in (ROOT / "tests").rglob("test_*.py"):
        folder = path.relative_to(ROOT / "tests").parent
        if folder.parts and folder.parts[0] in ("contracts", "integration", "reference", "reliability"):
            continue
        stem = path.stem.removeprefix("test_")
        candidates = [ROOT / "src/segkit" / folder / f"{prefix}{stem}" for prefix in ("", "_")]
        if folder.parts and folder.parts[0] == "benchmarks":
            candidates = [ROOT / "benchmarks" / stem, ROOT / "benchmarks" / stem.replace("_", "/", 1)]
        if not any(c.with_suffix(".py").is_file() or c.is_dir() for c in candidates):
            strays.append(_name(path))
    assert strays == []


def test_imports_go_down_only():
    linter = Path(sys.executable).parent / "lint-imports"
    if not linter.exists():
        pytest.skip("import-linter is not installed beside this Python")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([linter], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_licence_that_is_named_is_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = set(re.split(r"\s+(?:AND|OR|WITH)\s+", project["license"]))
    there = {path.stem for path in (ROOT / "LICENSES").glob("*.txt")}
    assert named == there
    assert (ROOT / "LICENSE").read_text() == (ROOT / "LICENSES/Apache-2.0.txt").read_text()


def test_every_dependency_is_pinned_by_the_constraints_within_its_bounds():
    requirements = pytest.importorskip("packaging.requirements")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))
    pins = {re.sub(r"[-_.]+", "-", name): version for name, version in pins.items()}
    assert not any("+" in version for version in pins.values())
    for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        requirement = requirements.Requirement(text)
        version = pins[re.sub(r"[-_.]+", "-", requirement.name.lower())]
        assert requirement.specifier.contains(version), text


def _git_yaml():
    done = subprocess.run(["git", "ls-files", "configs"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {line for line in done.stdout.splitlines() if line.endswith(".yaml")}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_wheel_holds_the_configurations_of_git_and_the_sample_data(tmp_path):
    """Also what git ignores would be shipped by a wheel that is built directly."""
    if not _git_yaml():
        pytest.skip("no checkout: git knows no configuration here")
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    shipped = {name.removeprefix("segkit/") for name in names if name.startswith("segkit/configs/")}
    assert shipped == _git_yaml()
    assert sum(name.startswith("segkit/sample_data/") for name in names) > 200
    assert sum(name.endswith("ATTRIBUTION.md") for name in names) >= 2
    assert wheel.stat().st_size < 16e6
