"""R14: what leads out of its folder, never ends, or grows beyond its size is refused before anything is written.

segkit extracts no archive: no code path unpacks a zip or tar to the disk, which a walk over the source holds. What it
reads from others are tables (dataset.json, groups.csv, a file of roles), folders of images, gzip streams of NIfTI, and
run folders. Names in them become names of files (masks, overlays, entries of the store), so they are judged first;
links in circles, FIFOs, devices, bombs and crowded folders end with an error that names them, not with a hang.
"""

import ast
import gzip
import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

import segkit
from segkit.configuration import main
from segkit.data import layouts, names
from segkit.data.layouts import discover, image_cases
from segkit.data.readers import read
from segkit.data.splits import assign_roles
from segkit.data.store import Store
from segkit.errors import DataError, UsageError
from segkit.runs.locate import run_folder
from segkit.types import Case

NO_HANG_S = 15.0

Spoil = Callable[[Path], object]


def everything(root: Path) -> set[Path]:
    return set(root.rglob("*"))


def listed(entries: object, **more: object) -> Spoil:
    """A dataset.json that lists its cases."""

    def write(root: Path) -> None:
        declared = json.loads((root / "dataset.json").read_text())
        (root / "dataset.json").write_text(json.dumps({**declared, "dataset": entries, **more}))

    return write


def entry(image: object, label: object = "labelsTr/phantom_000.nii.gz") -> dict[str, object]:
    return {"images": [image], "label": label}


GOOD = entry("imagesTr/phantom_000_0000.nii.gz")
DATA_SETS: dict[str, tuple[Spoil, str]] = {
    "image above": (listed({"a": entry("../../etc/passwd")}), "leads out of the data set"),
    "image from the root": (listed({"a": entry("/etc/passwd")}), "leads out of the data set"),
    "label above": (listed({"a": entry("imagesTr/x.nii.gz", "labelsTr/../../x")}), "leads out of the data set"),
    "label of another system": (listed({"a": entry("imagesTr/x.nii.gz", "..\\x")}), "leads out of the data set"),
    "NUL in a path": (listed({"a": entry("imagesTr/x\0.nii.gz")}), "leads out of the data set"),
    "id above": (listed({"../../escape": GOOD}), "path separator"),
    "id from the root": (listed({"/tmp/escape": GOOD}), "path separator"),
    "id of another system": (listed({"..\\escape": GOOD}), "path separator"),
    "id with NUL": (listed({"a\0b": GOOD}), "control character"),
    "id with a newline": (listed({"a\nb": GOOD}), "control character"),
    "id that colours a terminal": (listed({"a\x1b[2Jb": GOOD}), "control character"),
    "id without end": (listed({"a" * 5000: GOOD}), "5000 bytes"),
    "empty id": (listed({"": GOOD}), "empty"),
    "folder for an id": (listed({"..": GOOD}), "names a folder"),
    "path that is a number": (listed({"a": entry(7)}), "list of cases"),
    "path that is a word": (listed({"a": {"images": "abc", "label": "x"}}), "list of cases"),
    "list of nothing": (listed({"a": {"images": [], "label": "x"}}), "list of cases"),
    "entry that is none": (listed({"a": 3}), "list of cases"),
    "ending above": (listed(None, file_ending="/../x.nii.gz"), "file ending"),
    "ending that is a number": (listed(None, file_ending=7), "file ending"),
    "label beyond 32 bits": (listed(None, labels={"background": 0, "x": 2**40}), "beyond 32 bits"),
    "same id twice": (
        lambda root: (root / "dataset.json").write_text('{"dataset": {"a": 1, "a": 2}}'),
        "'a' is there twice",
    ),
    "nested 100,000 deep": (lambda root: (root / "dataset.json").write_text('{"a":' * 100_000), "no JSON"),
    "20 MB of text": (lambda root: (root / "dataset.json").write_bytes(b" " * (20 << 20)), "at most"),
    "FIFO for a table": (lambda root: _fifo(root / "dataset.json"), "FIFO"),
    "link to nothing": (lambda root: _link(root / "dataset.json", "/nowhere"), "cannot be read"),
    "link to itself": (lambda root: _link(root / "dataset.json", "dataset.json"), "cannot be read"),
    "device for a table": (lambda root: _link(root / "dataset.json", "/dev/zero"), "device"),
    "groups in two": (lambda root: (root / "groups.csv").write_text("case,group\na,b\na,c\n"), "in two groups"),
    "groups that are no text": (lambda root: (root / "groups.csv").write_bytes(bytes(range(256))), "cannot be read"),
    "field without end": (lambda root: (root / "groups.csv").write_text("case,group\n" + "a" * 200_000), "field"),
    "id above, by its file": (lambda root: (root / "imagesTr" / "a\\b_0000.nii.gz").touch(), "path separator"),
    "newline, by its file": (lambda root: (root / "imagesTr" / "a\nb_0000.nii.gz").touch(), "control character"),
    "no UTF-8, by its file": (lambda root: open(os.fsencode(root) + b"/imagesTr/\xff.nii.gz", "w").close(), "UTF-8"),
    "name without end": (lambda root: (root / "imagesTr" / ("a" * 240 + ".nii.gz")).touch(), "240 bytes"),
}


def _fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("name", list(DATA_SETS))
def test_hostile_data_sets(nnunet_raw: Callable[..., Path], tmp_path: Path, name: str) -> None:
    root = nnunet_raw(cases=1, shape=(4, 4, 4))
    spoil, words = DATA_SETS[name]
    spoil(root)
    before, started = everything(tmp_path), time.monotonic()
    with pytest.raises(DataError) as caught:
        discover(root)
    assert time.monotonic() - started < NO_HANG_S
    assert words in str(caught.value)
    assert caught.value.where
    assert caught.value.mend or "in two groups" in words
    assert all(character.isprintable() or character == "\n" for character in str(caught.value))
    assert everything(tmp_path) == before


def test_train_ends_with_65_and_prepares_nothing(
    nnunet_raw: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = nnunet_raw(cases=4, shape=(4, 4, 4))
    listed({"../../escape": GOOD, "b": GOOD, "c": GOOD})(root)
    words = [f"data.root={root}", f"paths.runs={tmp_path / 'runs'}", f"paths.cache={tmp_path / 'cache'}"]
    assert main("train", ["debug=fast", "run_name=r", *words]) == 65
    assert "path separator" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()
    assert not list(tmp_path.rglob("*escape*"))


ROLES: dict[str, tuple[str | bytes, str]] = {
    "unknown": ('{"train": ["../../etc/passwd"], "test": ["a"]}', "not there"),
    "twice": ('{"train": ["a", "b", "a"], "test": ["c"]}', "names a case twice"),
    "two roles": ('{"train": ["a", "b"], "test": ["b"]}', "twice|two roles"),
    "no names": ('{"train": [["a"]], "test": [{}]}', "cannot be understood"),
    "numbers": ('{"train": [1, 2], "test": [3]}', "cannot be understood"),
    "deep": ('{"train": ' + "[" * 100_000, "cannot be understood"),
    "no table": ("7", "cannot be understood"),
    "no text": (bytes(range(256)), "cannot be understood"),
    "csv of other roles": ("case,role\na,root\n", "cannot be understood"),
    "fold that is none": ("[]", "cannot be understood"),
}


@pytest.mark.parametrize("name", list(ROLES))
def test_hostile_files_of_roles(tmp_path: Path, name: str) -> None:
    content, words = ROLES[name]
    path = tmp_path / ("roles.csv" if name.startswith("csv") else "roles.json")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    cases = [Case(c, (tmp_path / f"{c}.png",), None, c) for c in "abc"]
    with pytest.raises(DataError, match=words) as caught:
        assign_roles(cases, file=path)
    assert caught.value.mend


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "loop"])
def test_a_table_that_is_no_file_does_not_hang(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "roles.json"
    {
        "fifo": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "folder": path.mkdir,
        "loop": lambda: path.symlink_to(path.name),
    }[kind]()
    started = time.monotonic()
    with pytest.raises(DataError, match="cannot be understood"):
        assign_roles([Case("a", (tmp_path / "a.png",), None, "a")], file=path)
    with pytest.raises((DataError, UsageError)):
        discover(_images(tmp_path), groups=path)
    assert time.monotonic() - started < NO_HANG_S


def _images(root: Path) -> Path:
    (root / "images").mkdir(exist_ok=True)
    (root / "images" / "a.png").touch()
    return root


@pytest.mark.parametrize("kind", ["fifo", "device", "socket", "loop", "folder of itself"])
def test_special_files_among_images_do_not_hang(
    nnunet_raw: Callable[..., Path], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import socket

    root = nnunet_raw(cases=3, shape=(6, 6, 6))
    path = root / "imagesTr" / "strange_0000.nii.gz"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            here = Path.cwd()
            os.chdir(path.parent)  # a socket's path has at most 108 bytes
            try:
                one.bind(path.name)
            finally:
                os.chdir(here)
    else:
        path.symlink_to({"device": "/dev/zero", "loop": path.name, "folder of itself": "."}[kind])
    started = time.monotonic()
    expected = 0 if kind == "folder of itself" else 65
    assert main("check", [f"data.root={root}", "json=true"]) == expected
    findings = json.loads(capsys.readouterr().out)
    if expected:
        errors = [finding for finding in findings if finding["case"] == "strange" and finding["file"] == str(path)]
        assert errors
        assert errors[0]["mend"]
    with pytest.raises(DataError):
        Store(root / "store").file_hash(root / "imagesTr" / ("strange_0000.nii.gz" if expected else "none"))
    assert time.monotonic() - started < NO_HANG_S


def test_a_crowded_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "MAX_FILES", 20)
    root = _images(tmp_path)
    for k in range(20):
        (root / "images" / f"b{k}.png").touch()
    with pytest.raises(DataError, match="more files than segkit reads"):
        discover(root)
    with pytest.raises(DataError, match="more files than segkit reads"):
        image_cases(root / "images")


@pytest.mark.parametrize("case_id", ["../x", "a/b", "a\\b", "a\0b", "a\nb", "", " ", ".", "..", "é" * 150, "\ud800"])
def test_what_no_file_may_be_called(case_id: str) -> None:
    try:
        assert names.fault_of(case_id)
    except UnicodeEncodeError:
        pytest.fail("a lone surrogate is judged, not stumbled over")


@pytest.mark.parametrize("case_id", ["a", "a.b-c_d", "Fall 3", "é", "病例", "..a", "x" * 200])
def test_what_a_file_may_be_called(case_id: str) -> None:
    assert names.fault_of(case_id) == ""


@pytest.mark.parametrize(
    "name", ["../out", "/tmp/out", "~/out", "a/../../out", "a\\b", "a\nb", "a\0b", "", " ", "x" * 300, "a/" + "y" * 256]
)
def test_a_run_lies_below_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a run"):
        run_folder(tmp_path, name)


def test_run_names_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = everything(tmp_path)
    runs = tmp_path / "runs"
    for name in ("../escape", str(tmp_path / "escape"), "a/../../escape"):
        assert main("train", ["debug=fast", f"paths.runs={runs}", f"run_name={name}"]) == 2
        assert "a run lies under paths.runs" in capsys.readouterr().err
    assert everything(tmp_path) == before
    assert run_folder(runs, "sweep/0-lr=0.1") == runs / "sweep" / "0-lr=0.1"


# -- bombs -------------------------------------------------------------------------------------------------


def _header(*shape: int, offset: float = 352.0) -> bytes:
    content = bytearray(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)).to_bytes())
    struct.pack_into("<4h", content, 40, 3, *shape)
    struct.pack_into("<f", content, 108, offset)
    return bytes(content)


@pytest.mark.parametrize(
    ("shape", "offset", "words"),
    [
        ((32000, 32000, 32000), 352.0, "more voxels"),
        ((1290, 1290, 1290), 352.0, "more voxels"),
        ((1200, 1200, 1200), 352.0, "ends early"),
        ((4, 4, 4), 1e12, "too far"),
        ((4, 4, 4), 352.0, "more than its header announces"),
    ],
)
def test_gzip_bombs(tmp_path: Path, size: Callable[[int, int], int], shape, offset, words) -> None:
    """A few kB that unpack to `megabytes`: never more of them is unpacked than the header says, and a little."""
    import tracemalloc

    path, megabytes = tmp_path / "a.nii.gz", size(16, 1024)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(_header(*shape, offset=offset))
        for _ in range(megabytes):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(DataError, match=words):
        read(path, case="a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if words != "ends early":  # where the header promises as much, as much is read as is there
        assert peak < 32 << 20


# -- archives ----------------------------------------------------------------------------------------------


def test_no_code_path_extracts_an_archive() -> None:
    """zipfile is opened in one place, to look at the names in a checkpoint; nothing is written from it."""
    unpacking = {"extract", "extractall", "unpack_archive", "extractfile"}
    opening: set[str] = set()
    for path in Path(segkit.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called.rpartition(".")[2] not in unpacking, f"{path}:{node.lineno}"
                assert not called.startswith("tarfile."), f"{path}:{node.lineno}"
                if called.startswith("zipfile.ZipFile"):
                    opening.add(path.name)
    assert opening == {"tensors.py"}
