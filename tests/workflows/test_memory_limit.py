"""What was promised of memory, measured: the most that a process of its own held, as the system counts it."""

import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from segkit.data.layouts import image_cases
from segkit.errors import DataError
from segkit.planning.free_memory import resident_bytes
from segkit.workflows.loading import load, prepare_for
from segkit.workflows.memory_limit import UNCOUNTED, MemoryLimit

MB = 10**6
SCRIPT = """
import sys
from hashlib import sha256
from pathlib import Path
import numpy as np
import torch
from segkit.evaluation.native import Stream, native_labels, native_prediction
from segkit.inference.predictor import Predictor
from segkit.planning.free_memory import resident_bytes
from segkit.planning.prediction_memory import MemberSize, fitted, pass_bytes
from segkit.types import Geometry

K, GRID, NATIVE, PATCH = 64, (160, 96, 96), (120, 110, 80), (48, 48, 48)
torch.set_num_threads(1)
torch.manual_seed(0)
network = torch.nn.Conv3d(1, K, 1)
predictor = Predictor(network, patch_size=PATCH, num_classes=K)
image = torch.randn(1, *GRID)
geometry = Geometry((0, 1, 2), (False,) * 3, NATIVE, (1.0,) * 3, tuple((0, n) for n in NATIVE))

def a_pass(tiles):
    return pass_bytes(network, tile_batch=tiles, channels=1, num_classes=K, patch_size=PATCH, precision="32-true",
                      channels_last=False, mirrored=False, device="cpu")

# What torch loads at its first calls.
small = Geometry((0, 1, 2), (False,) * 3, (50, 50, 50), (1.0,) * 3, ((0, 50),) * 3)
native_prediction([predictor(image[:, :48, :48, :48])], small)
sizes = [MemberSize(K, GRID, PATCH, 1, a_pass)]
a_pass(1)
for where in ("memory", "file"):
    Path("/proc/self/clear_refs").write_text("5")  # the most it has held is counted from here
    now, _ = resident_bytes()
    in_memory = fitted(sizes, NATIVE, now=now, limit=None)
    way = fitted(sizes, NATIVE, now=now, limit=None if where == "memory" else in_memory.predicting - 25 * 10**6)
    options = {} if way.window is None else {"scratch": Path(sys.argv[1]), "window": way.window}
    labels = native_labels([Stream(predictor.stream(image, **options), K, GRID)], geometry)
    _, bounded = resident_bytes()
    print(int(way.window is not None), now, way.predicting, bounded, sha256(labels.tobytes()).hexdigest())
Path("/proc/self/clear_refs").write_text("5")
labels = native_prediction([predictor(image)], geometry)
_, bounded = resident_bytes()
print(len(np.unique(labels)), now, 0, bounded, sha256(labels.tobytes()).hexdigest())
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to tell what a process holds")
def test_the_peak_is_as_predicted_and_the_labels_are_the_same(tmp_path):
    run = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=True)
    memory, file, whole = (line.split() for line in run.stdout.splitlines())
    assert memory[-1] == file[-1] == whole[-1]
    assert int(whole[0]) > 2  # classes
    assert (memory[0], file[0]) == ("0", "1")
    for _, now, predicted, taken, _ in (memory, file):
        assert int(taken) <= int(predicted) + UNCOUNTED
        # Nor is it a bound that everything keeps.
        assert int(predicted) - int(now) < 0.5 * (int(whole[3]) - int(now))
    assert int(file[2]) - int(file[1]) < int(memory[2]) - int(memory[1]) - 20 * MB
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_is_told_before_it_starts(nnunet_raw, threshold_run, tmp_path):
    root = nnunet_raw(cases=6, num_classes=2)
    members = [load(threshold_run(root, 1.3), accelerator="cpu", tile_batch=4)]
    (case,) = image_cases(root / "imagesTr" / "phantom_000_0000.nii.gz")
    prepared = prepare_for(members, case)
    with pytest.raises(DataError, match="does not fit into the memory") as raised:
        MemoryLimit(members, memory_gb=0.001, scratch=tmp_path).fit(prepared)
    assert "memory_gb=" in raised.value.mend
    assert members[0].predictor.tile_batch == 4
    way = MemoryLimit(members, memory_gb=None, scratch=tmp_path).fit(prepared)
    assert way.window is None
    assert way.tile_batches == (4,)
    known = resident_bytes()
    if known is not None:
        assert way.now >= 0.9 * known[0]


def test_what_ran_out_of_memory_stays_small_and_what_was_lowered_comes_back(nnunet_raw, threshold_run, tmp_path):
    root = nnunet_raw(cases=6, num_classes=2)
    members = [load(threshold_run(root, 1.3), accelerator="cpu", tile_batch=8)]
    (case,) = image_cases(root / "imagesTr" / "phantom_000_0000.nii.gz")
    prepared = prepare_for(members, case)
    limit = MemoryLimit(members, memory_gb=None, scratch=tmp_path)
    assert limit.fit(prepared).tile_batches == (8,)
    members[0].predictor.tile_batch = 2  # as after a pass that ran out of memory
    assert limit.fit(prepared).tile_batches == (2,)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to tell what a process holds")
def test_512_x_512_x_400_voxels_and_105_classes_in_6_gb(nnunet_raw, threshold_run, tmp_path):
    """The verb, from the file to the mask: 44 GB of logits; a network of one convolution, tiles of 96 voxels."""
    if shutil.disk_usage(tmp_path).free < 12 * 10**9:
        pytest.skip("needs 12 GB of disk")
    path = threshold_run(nnunet_raw(cases=6, num_classes=105), 1.0, "plan.patch_size=[96,96,96]", "plan.batch_size=1")
    rng = np.random.default_rng(0)
    voxels = rng.integers(1, 1000, (32, 32, 25), dtype=np.int16).repeat(16, 0).repeat(16, 1).repeat(16, 2)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "body.nii")
    words = [f"run={path}", f"input={tmp_path / 'body.nii'}", f"output={tmp_path / 'masks'}", "memory_gb=6"]
    words += ["trainer.accelerator=cpu", "trainer.threads=2", "validation.tile_batch=1"]
    script = "import resource, sys; from segkit.configuration.entry import main; code = main('predict', sys.argv[1:]); "
    script += "print('PEAK', 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
    run = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=3600)
    assert run.returncode == 0, run.stderr
    assert "sums of 8.3 GB in a file" in run.stdout
    peak = int(run.stdout.split("PEAK")[1])
    assert peak < 6 * 10**9
    mask = np.asarray(nibabel.load(tmp_path / "masks" / "body.nii").dataobj)
    # The network is a threshold, and the image was given its classes in blocks.
    normalised = (voxels - voxels.mean()) / voxels.std()
    sure = np.abs(normalised - 1.0) > 1e-3
    assert (mask == (normalised > 1.0))[sure].all()
