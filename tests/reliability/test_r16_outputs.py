"""R16: outputs are whole or not there, whenever a verb is killed; run again, it ends with the same bytes.

`predict` keeps the masks that are there after it has read them to their end, `evaluate` has no summary beside tables
of another evaluation, `prepare` no entry that is not whole.
"""

import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tests.reliability.fork_server import verb
from tests.reliability.processes import leftovers, until

from segkit.data.entries import damage
from segkit.runs.files import sha256

pytestmark = pytest.mark.alone

CPU = ("trainer.accelerator=cpu", "trainer.threads=1")


@pytest.fixture
def trained(forks, train_argv, tmp_path):
    """A run, its data, and as many images to predict."""

    def make(images: int) -> tuple[Path, Path]:
        child = forks.start(verb, "train", *train_argv("run", "trainer.max_epochs=1"), output=tmp_path / "run")
        assert child.wait() == 0, child.stderr
        source = tmp_path / "images"
        source.mkdir()
        for k in range(images):
            image = np.random.default_rng(k).normal(100, 30, (20, 24, 18)).astype(np.float32)
            nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), source / f"scan{k:02d}_0000.nii.gz")
        return tmp_path / "runs" / "run", source

    return make


def contents(folder: Path) -> dict[str, str]:
    """sha256 of each file below a folder, temporary ones left out."""
    files = (path for path in folder.rglob("*") if path.is_file())
    shown = (path.relative_to(folder) for path in files)
    return {str(path): sha256(folder / path) for path in shown if not any(part[0] == "." for part in path.parts)}


def ended(forks, name, argv, output):
    started = time.monotonic()
    child = forks.start(verb, name, *argv, output=output)
    assert child.wait() == 0, child.stderr
    return child, time.monotonic() - started


def test_predict(forks, trained, tmp_path, size):
    run, source = trained(size(6, 20))

    def argv(output: Path) -> list[str]:
        return [f"run={run}", f"input={source}", f"output={output}", *CPU, "validation.step=0.1"]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _, seconds = ended(forks, "predict", argv(whole), tmp_path / "log")
    expected = contents(whole)
    rng = np.random.default_rng(0)
    kills = 0
    for _ in range(size(3, 20)):
        child = forks.start(verb, "predict", *argv(killed), output=tmp_path / "log-killed")
        before = max(1, len(list(killed.glob("*"))))
        # Between two masks or within the writing of one; not before the network is loaded.
        until(lambda b=before, c=child: len(list(killed.glob("*"))) > b or not c.running(), within=60, every=0.001)
        time.sleep(rng.uniform(0, 2 * seconds / len(expected)))
        child.kill()
        kills += child.wait() == -9
        now = contents(killed)
        assert now == {name: expected[name] for name in now}
    assert kills >= size(2, 10)
    there = len(list(killed.glob("*.nii.gz")))
    last, _ = ended(forks, "predict", argv(killed), tmp_path / "log-last")
    assert last.stdout.count("kept, was there") == there
    assert contents(killed) == expected
    assert leftovers(killed) == []


def test_predict_reads_what_it_keeps(forks, trained, tmp_path):
    run, source = trained(3)
    argv = [f"run={run}", f"input={source}", f"output={tmp_path / 'masks'}", *CPU]
    ended(forks, "predict", argv, tmp_path / "log")
    expected = contents(tmp_path / "masks")
    masks = sorted((tmp_path / "masks").glob("*.nii.gz"))
    masks[0].write_bytes(masks[0].read_bytes()[:-20])
    masks[1].write_bytes(b"")
    last, _ = ended(forks, "predict", argv, tmp_path / "log-again")
    assert last.stdout.count("kept, was there") == 1
    assert last.stderr.count("is made again") == 2
    assert contents(tmp_path / "masks") == expected


def test_evaluate(forks, trained, tmp_path, size):
    run, _ = trained(0)

    def argv(output: Path) -> list[str]:
        return [f"run={run}", "subset=test", f"output={output}", "save_predictions=true", "overlays=1", *CPU]

    _, seconds = ended(forks, "evaluate", argv(tmp_path / "whole"), tmp_path / "log")
    expected, killed = contents(tmp_path / "whole"), tmp_path / "killed"
    report = (run / "report.html").read_text()
    rng = np.random.default_rng(0)
    for _ in range(size(1, 20)):
        child = forks.start(verb, "evaluate", *argv(killed), output=tmp_path / "log-killed")
        time.sleep(rng.uniform(0.3, 1.0) * seconds)
        child.kill()
        child.wait()
        now = contents(killed)
        assert now == {name: expected[name] for name in now}
        assert (run / "report.html").read_text().endswith(report[-20:])
    ended(forks, "evaluate", argv(killed), tmp_path / "log-last")
    assert contents(killed) == expected
    assert leftovers(killed, run) == []


def test_prepare(forks, train_argv, tmp_path, size):
    """The store's entries; `plan.json` and the other files of a run folder are killed at in R1."""
    words = [word for word in train_argv("unused") if word.startswith("data.")]

    def argv(cache: Path) -> list[str]:
        return [*words, f"paths.cache={cache}", "plan=tiny", "trainer.accelerator=cpu"]

    _, seconds = ended(forks, "prepare", argv(tmp_path / "whole"), tmp_path / "log")
    cache, rng = tmp_path / "killed", np.random.default_rng(0)
    for _ in range(size(2, 20)):
        child = forks.start(verb, "prepare", *argv(cache), output=tmp_path / "log-killed")
        time.sleep(rng.uniform(0.3, 1.0) * seconds)
        child.kill()
        child.wait()
        entries = (path for path in cache.glob("cases/*") if not path.name.startswith("."))
        assert [fault for entry in entries if (fault := damage(entry, verify="content"))] == []
    ended(forks, "prepare", argv(cache), tmp_path / "log-last")
    assert contents(cache / "cases") == contents(tmp_path / "whole" / "cases")
    assert leftovers(cache) == []
