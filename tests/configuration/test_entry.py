import errno
import sys
from types import ModuleType

import pytest
import yaml

from segkit.configuration.entry import call, main, read_arguments
from segkit.errors import DataError, Diverged, ExitCode, OutOfMemory, Preempted, RunInUseError, UsageError


@pytest.fixture
def workflow(monkeypatch):
    """A stand-in for the workflow of `status`: it keeps what it was given, and raises what it is told to."""
    module = ModuleType("segkit.workflows.status")
    module.seen = []
    module.error = None

    def run(config):
        module.seen.append(config)
        if module.error is not None:
            raise module.error
        return "done"

    module.run = run
    monkeypatch.setitem(sys.modules, "segkit.workflows.status", module)
    return module


def test_the_workflow_gets_the_checked_configuration(workflow):
    assert main("status", ["json=true", "paths.runs=/r"]) == ExitCode.DONE
    typed = ["json=true", "paths.runs=/r"]
    assert workflow.seen == [{"run": None, "json": True, "paths": {"runs": "/r"}, "overrides": typed}]


def test_python_gets_what_the_workflow_returns_twice(workflow):
    assert [call("status", []), call("status", ["json=true"])] == ["done", "done"]
    with pytest.raises(UsageError, match="unknown key jason"):
        call("status", ["jason=true"])
    with pytest.raises(TypeError, match=r'segkit\.status\(\["json=true"\]\)'):
        call("status", "json=true")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DataError("no foreground in any case", where="case 7"), 65, "no foreground in any case\n  where: case 7"),
        (RunInUseError("in use"), 73, "in use"),
        (OSError(errno.ENOSPC, "No space left on device"), 74, "No space left on device"),
        (Preempted("stopped"), 75, "stopped"),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (ZeroDivisionError("oh"), 1, "This is a bug in segkit."),
    ],
)
def test_an_exception_becomes_a_message_and_a_code(workflow, capsys, error, code, message):
    workflow.error = error
    assert main("status", []) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert ("Traceback" in err) == (code == 1)


@pytest.mark.parametrize("error", [Diverged("Training has failed."), OutOfMemory("Out of memory in training.")])
def test_a_training_that_failed_by_itself_is_no_bug(workflow, capsys, error):
    workflow.error = error
    assert main("status", []) == 1
    said = capsys.readouterr().err
    assert str(error) in said
    assert "Traceback" not in said
    assert "bug" not in said


def test_cfg_prints_the_resolved_configuration_and_runs_nothing(workflow, capsys):
    assert main("status", ["--cfg", "job", "json=true"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == {"run": None, "json": True, "paths": {"runs": "runs"}}
    assert workflow.seen == []


def test_wrong_options_are_told_with_the_wrong_keys(workflow, capsys):
    assert main("status", ["--jsn", "--mutlirun", "jason=true", "--cfg=hydra", "--config-dir", "/nowhere"]) == 2
    err = capsys.readouterr().err
    assert err.strip().startswith("5 problems")
    assert "--jsn: unknown option." in err
    assert "Did you mean --multirun?" in err
    assert "Did you mean json?" in err
    assert "Write --cfg job." in err
    assert "/nowhere: there is no such folder" in err
    assert workflow.seen == []


def test_help_goes_before_everything(workflow, capsys):
    assert main("status", ["jason=1", "-h"]) == 0
    assert capsys.readouterr().out.startswith("usage: python -m segkit.status")


def test_arguments_are_sorted(tmp_path):
    request = read_arguments(["a=1", "-cd", str(tmp_path), "--config-name=x.yaml", "-m", "b=-1"])
    assert request.overrides == ["a=1", "b=-1"]
    assert request.config_dirs == [tmp_path]
    assert request.config_name == "x"
    assert request.switches == {"--multirun"}
    assert request.problems == []
