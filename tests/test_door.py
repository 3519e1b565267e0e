import importlib
import subprocess
import sys
from types import ModuleType

import pytest

import segkit


@pytest.mark.parametrize("verb", segkit.VERBS)
def test_every_verb_is_a_module_that_can_be_called(verb, monkeypatch):
    module = ModuleType(f"segkit.workflows.{verb}")
    module.run = lambda config: sorted(config)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    needed = {
        "evaluate": ["run=a"],
        "calibrate": ["run=a"],
        "compare": ["reference=a", "candidate=b"],
        "report": ["run=a"],
        "predict": ["run=a", "input=b", "output=c"],
        "export": ["run=a", "output=c"],
    }.get(verb, [])
    first, second = (getattr(segkit, verb)(needed) for _ in range(2))
    assert first == second
    assert importlib.import_module(f"segkit.{verb}") is getattr(segkit, verb)


def test_the_package_is_light_and_knows_its_names():
    code = "import segkit, sys; print(sorted({'torch', 'numpy', 'hydra', 'yaml'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    assert {"train", "load", "__version__"} <= set(dir(segkit))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        segkit.nothing  # noqa: B018


def test_a_wrong_command_line_leaves_with_2_and_without_torch(tmp_path):
    code = (
        "import runpy, sys\nsys.argv = ['x', 'sed=1', 'trainer.max_epoch=1']\n"
        "try:\n    runpy.run_module('segkit.train', run_name='__main__')\n"
        "except SystemExit as leave:\n    print(leave.code, 'torch' in sys.modules, 'numpy' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout == "2 False False\n"
    assert "2 problems with the configuration of segkit.train" in done.stderr
