"""What can be held of the rows without the peers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.bench import Bench
from benchmarks.gpu import parse
from benchmarks.ours import network, overrides, planned
from benchmarks.peers.nnunet import CONFIGURATION, architecture, environment, plans, prepare
from benchmarks.phantoms import SIDE, phantom
from benchmarks.rows import NAMES, component_loss, load
from benchmarks.rows.network import energy
from benchmarks.topology import HIPPOCAMPUS, HIPPOCAMPUS_FULL, LARGE, NETWORKS, SMOKE, STEP

from segkit.configuration import build_network
from segkit.data.sample import sample_root
from segkit.ops.instances import voronoi_cells
from segkit.types import Target

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(tmp_path):
    return Bench("cpu", sample_root(), True, tmp_path, quick=True)


def test_a_bench_survives_the_way_to_its_processes(bench):
    assert Bench.from_json(bench.to_json()) == bench


@pytest.mark.parametrize("name", [name for name in NAMES if name != "trainers"])
def test_every_pair_names_contenders_and_ours_is_ours(name, bench):
    known = set(load(name).contenders(bench))
    for pair in load(name).pairs:
        ours = {pair.ours} | ({pair.same} if pair.same else set())
        assert ours <= known
        assert all(one.startswith("segkit") for one in ours)
        # A second number of workers takes part only where it is not nnU-Net's own.
        assert pair.peer in known or pair.peer == "nnU-Net, 2 workers"


@pytest.mark.parametrize("loss", component_loss.LOSSES)
def test_the_loop_over_components_computes_our_loss(loss):
    """What is timed against each other is the same number with the same gradient."""
    label, ids = component_loss.scene(24, 5)
    assert len(ids.unique()) == 6
    cells = torch.from_numpy(voronoi_cells(ids[0, 0].numpy(), (1.0, 1.0, 1.0)))[None, None]
    target = Target(label=label, instances=ids, cells=cells, num_instances=5)
    logits = torch.randn(1, 2, 24, 24, 24, dtype=torch.float64, requires_grad=True)
    ours, loop = component_loss._ours(loss)(logits, target), component_loss._loop(loss)(logits, target)
    torch.testing.assert_close(ours, loop)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in (ours, loop)))


def test_our_plan_is_the_topology_with_every_case_in_training(bench):
    config, plan = planned(overrides(bench, STEP, precision="32-true"))
    assert (plan.patch_size, plan.batch_size, plan.features) == (STEP.patch, STEP.batch, STEP.features)
    assert plan.strides == tuple(map(tuple, STEP.strides))
    assert plan.precision == "32-true"
    roles = json.loads(Path(config["data"]["split"]["file"]).read_text())
    assert len(roles["train"]) == 40
    assert not roles["tuning"]
    assert not roles["test"]
    parameters = sum(parameter.numel() for parameter in build_network(config, plan).parameters())
    assert parameters == pytest.approx(16.5e6, rel=0.01)


@pytest.mark.parametrize("topology", [STEP, HIPPOCAMPUS, HIPPOCAMPUS_FULL, LARGE], ids=lambda topology: topology.name)
def test_nnunets_plan_is_the_topology(topology):
    plan = plans(topology)["configurations"][CONFIGURATION]
    arguments = plan["architecture"]["arch_kwargs"]
    assert tuple(plan["patch_size"]) == topology.patch
    assert tuple(arguments["features_per_stage"]) == topology.features
    assert arguments["n_stages"] == len(arguments["strides"]) == len(arguments["kernel_sizes"])
    assert len(arguments["n_conv_per_stage_decoder"]) == arguments["n_stages"] - 1
    json.dumps(plan)


def test_nnunets_residual_encoder_has_the_blocks_of_the_topology():
    described = architecture(LARGE, "residual")
    assert described["network_class_name"].endswith(".ResidualEncoderUNet")
    assert described["arch_kwargs"]["n_blocks_per_stage"] == [1, 3, 4, 6, 6, 6]
    assert described["arch_kwargs"]["n_conv_per_stage_decoder"] == [1] * 5
    assert "n_conv_per_stage" not in described["arch_kwargs"]


@pytest.mark.parametrize("name", ["unet", "residual_unet"])
def test_our_u_nets_have_a_head_at_every_level_as_nnunets(bench, name):
    built, precision = network(bench, SMOKE, name, precision="32-true")
    image, _ = SMOKE.inputs("cpu")
    heads = built.train()(image)
    assert precision == "32-true"
    assert [tuple(head.shape) for head in heads] == [(2, 3, 16, 16, 16), (2, 3, 8, 8, 8)]
    if name == "unet":  # as it stands beside MONAI's DynUNet
        assert isinstance(network(bench, SMOKE, name, deep_supervision=False)[0].train()(image), torch.Tensor)


def test_every_network_is_timed_and_its_memory_taken(bench):
    assert {"unet", "residual_unet", "kiunet"} <= set(NETWORKS)
    assert "custom" not in NETWORKS
    for row in ("network", "network_memory"):
        assert {f"segkit {name} fp32" for name in NETWORKS} <= set(load(row).contenders(bench))


def test_what_is_differentiated_is_the_sum_of_mean_squares_of_all_heads():
    heads = [torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0]])]
    assert energy(heads).item() == (1 + 9) / 2 + 4
    assert energy(heads[0].bfloat16()).dtype is torch.float32


def test_a_batch_is_the_same_for_all_and_shows_every_class():
    image, label = HIPPOCAMPUS.inputs("cpu")
    again, _ = HIPPOCAMPUS.inputs("cpu")
    assert torch.equal(image, again)
    assert tuple(image.shape) == tuple(label.shape) == (2, 1, 40, 56, 40)
    assert sorted(label.unique().tolist()) == [0, 1, 2]
    assert torch.equal(label[:, :, ::8, ::8, ::8], label[:, :, 7::8, 7::8, 7::8])


def test_nnunet_is_left_to_itself_unless_told(tmp_path):
    assert "nnUNet_n_proc_DA" not in environment(tmp_path)
    assert environment(tmp_path, workers=12)["nnUNet_n_proc_DA"] == "12"
    assert "-np" not in prepare()
    assert prepare(processes=2)[-4:] == ["-npfp", "2", "-np", "2"]


HELD = """
import subprocess, sys
from benchmarks.memory import children_mb, peak_mb
bytearray(b"x") * 200_000_000
alone = children_mb()
hold = "held = bytearray(b'x') * 100_000_000; print('ready', flush=True); input()"
with subprocess.Popen([sys.executable, "-c", hold], stdin=-1, stdout=-1, text=True) as child:
    child.stdout.readline()
    print(peak_mb(), alone, children_mb())
    child.communicate("")
"""


def test_memory_is_the_peak_of_this_process_and_what_children_hold_now():
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=False, cwd=ROOT)
    peak, alone, children = map(float, done.stdout.split())
    assert 200 <= peak <= 260  # what was freed counts, what the parent of this process has does not
    assert alone == 0
    assert 100 <= children <= 130


def test_the_drivers_answer_is_read_and_a_torn_line_is_not():
    assert parse("37\n 100\n[N/A]\n0\n") == [37.0, 100.0, 0.0]


def test_a_phantom_is_a_ball_in_a_ball():
    image, label = phantom(3)
    assert image.shape == label.shape == (SIDE,) * 3
    core, shell = (label == 2).sum(), (label >= 1).sum()
    assert core == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.01)
    assert shell == pytest.approx(4 / 3 * np.pi * 40**3, rel=0.01)
    assert [image[label == k].mean() for k in range(3)] == pytest.approx([0, 1, 2], abs=0.02)
    assert np.array_equal(phantom(3)[0], image)
