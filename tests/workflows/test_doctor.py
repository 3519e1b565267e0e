import json
import sys

import pytest
import torch

from segkit.errors import StorageError, UsageError
from segkit.planning.device import DeviceFacts
from segkit.workflows import doctor, machine
from segkit.workflows.machine import Check

CPU = DeviceFacts("cpu", "processor", 8 * 2**30, 2, native_bf16=False)


def _usage(free):
    return lambda folder: type("Usage", (), {"free": free, "total": 2 * free})


def test_a_float32_convolution_is_exact_to_rounding_and_a_bfloat16_one_to_its_mantissa():
    """eps is 2^-24 and 2^-8; sums of 216 products in float32 add little to the second."""
    assert machine.convolution_error("cpu", torch.float32) < 1e-5
    assert 2**-12 < machine.convolution_error("cpu", torch.bfloat16) < 2**-7


@pytest.mark.parametrize(
    ("fault", "dtype", "state"),
    [
        (lambda y: y * 1.05, torch.bfloat16, "warning"),
        (lambda y: y * float("nan"), torch.bfloat16, "warning"),
        (lambda y: y + 1, torch.float32, "error"),
        (lambda y: y * float("nan"), torch.float32, "error"),
    ],
)
def test_a_wrong_convolution_is_found(monkeypatch, fault, dtype, state):
    right = torch.nn.functional.conv3d

    def broken(image, weight, **settings):
        result = right(image, weight, **settings)
        return fault(result) if image.dtype == dtype else result

    monkeypatch.setattr(machine.functional, "conv3d", broken)
    check = machine.check_convolution(CPU)
    assert check.state == state
    assert check.mend


def test_a_convolution_that_is_not_there_is_an_error(monkeypatch):
    def missing(*_, **__):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(machine.functional, "conv3d", missing)
    check = machine.check_convolution(CPU)
    assert check.state == "error"
    assert "no kernel image" in check.found


def test_missing_packages_are_named():
    check = machine.check_packages(lambda name: None if name == "tifffile" else "1.0")
    assert check.state == "error"
    assert check.found == "not installed: tifffile"


@pytest.mark.parametrize(
    ("version", "state"), [((3, 10), "warning"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "warning")]
)
def test_only_tested_pythons_pass(version, state):
    assert machine.check_python(version).state == state


@pytest.mark.parametrize(("free", "state"), [(64 * 2**20, "warning"), (4 * 2**30, "ok")])
def test_little_shared_memory_is_a_warning(monkeypatch, tmp_path, free, state):
    monkeypatch.setattr(machine.shutil, "disk_usage", _usage(free))
    assert machine.check_shared_memory(tmp_path).state == state


def test_a_disk_that_is_full_is_a_warning_and_one_that_cannot_be_written_an_error(monkeypatch, tmp_path):
    folder = tmp_path / "not" / "yet" / "there"
    assert machine.check_disk(folder).state == "ok"
    monkeypatch.setattr(machine.shutil, "disk_usage", _usage(2**20))
    assert machine.check_disk(folder).state == "warning"

    def refuse(**_):
        raise PermissionError(13, "read-only")

    monkeypatch.setattr(machine.tempfile, "NamedTemporaryFile", refuse)
    check = machine.check_disk(folder)
    assert (check.state, check.failure) == ("error", StorageError)
    assert not folder.exists()


def test_more_threads_than_cores_is_a_warning():
    assert machine.check_threads(0).state == "warning"
    assert machine.check_threads(4096).state == "ok"


def test_the_device_line_names_native_precisions():
    assert "bfloat16 is emulated" in machine.check_device(CPU).found
    native = DeviceFacts("cuda", "gpu", 2**30, 2, native_bf16=True)
    assert "natively float32 and bfloat16" in machine.check_device(native).found


def test_an_unwritable_store_is_an_error_with_its_mend(tmp_path):
    (tmp_path / "file").write_text("")
    check = machine.check_mlflow(tmp_path)  # a folder: MLflow's old file store
    assert check.state == "error"
    assert "mlflow.db" in check.mend


CHECKS = [
    Check("python", "ok", "3.11"),
    Check("disk", "warning", "0.1 GiB free " * 12, "free some space"),
]


def _config(tmp_path, **given):
    return {"json": False, "paths": {"runs": str(tmp_path / "runs"), "mlflow": str(tmp_path / "m.db")}} | given


def test_the_table_shows_state_and_mend_and_keeps_its_width(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "machine_checks", lambda *_: CHECKS)
    assert doctor.run(_config(tmp_path)) == CHECKS
    out = capsys.readouterr().out
    assert "-> free some space" in out
    assert "warning  disk" in out
    assert max(map(len, out.splitlines())) <= 110


def test_json_is_all_that_is_on_stdout(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "machine_checks", lambda *_: CHECKS)
    doctor.run(_config(tmp_path, json=True))
    printed = json.loads(capsys.readouterr().out)
    assert [check["state"] for check in printed["checks"]] == ["ok", "warning"]
    assert printed["device"]["kind"] in ("cpu", "cuda", "mps")


def test_an_error_is_raised_after_everything_was_printed(capsys, monkeypatch, tmp_path):
    broken = [Check("packages", "error", "not installed: torch", "make setup"), *CHECKS]
    monkeypatch.setattr(doctor, "machine_checks", lambda *_: broken)
    with pytest.raises(UsageError, match="not installed: torch"):
        doctor.run(_config(tmp_path))
    assert "disk" in capsys.readouterr().out


def test_this_machine_is_looked_at_and_nothing_is_left_behind(tmp_path):
    paths = _config(tmp_path)["paths"]
    checks = machine.machine_checks(CPU, paths)
    states = {check.name: check.state for check in checks}
    assert states["convolution"] == "ok"
    assert states["MLflow"] == "ok"
    assert states["python"] == "ok" or sys.version_info[:2] >= (3, 14)
    assert list(tmp_path.iterdir()) == []
