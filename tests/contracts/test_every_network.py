"""The contract of networks, for every file in configs/network: a new network is tested by being there.

What a constructor does not take is not asked of it: networks without deep supervision return one tensor in training
too, and networks with running statistics compute something else then.
"""

import copy
import inspect
import multiprocessing
import pickle
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from torch.nn.modules.batchnorm import _BatchNorm

from segkit.configuration.instantiate import instantiate, locate
from segkit.losses.compound import WeightedSum
from segkit.losses.cross_entropy import CrossEntropyLoss
from segkit.losses.deep_supervision import DeepSupervision
from segkit.losses.dice import DiceLoss
from segkit.networks.checkpointing import Recomputing, checkpoint_stages
from segkit.networks.compilation import compile_network
from segkit.networks.processor_convolution import mend_processor_convolutions
from segkit.types import Target

FOLDER = Path(__file__).parents[2] / "configs" / "network"
CONFIGS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml"))}
NAMES = [name for name, config in CONFIGS.items() if config["_target_"] != "???"]
K = 3
PLANS = {
    2: {"strides": [(1, 1), (2, 2), (2, 2), (2, 2)], "kernel_sizes": [(3, 3)] * 4},
    3: {"strides": [(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2)], "kernel_sizes": [(1, 3, 3), *[(3, 3, 3)] * 3]},
}
FULL = {2: (32, 64, 128, 256, 512, 512, 512, 512), 3: (32, 64, 128, 256, 320, 320)}
"""Channels of nnU-Net's networks."""
COUNTS = {
    # Parameters at these channels with one channel in and three classes out, all heads included: in 2D, in 3D. Those of
    # nnU-Net's networks, and of MONAI's as tests/networks explains them.
    "unet": (46_326_581, 31_196_399),
    "residual_unet": (140_019_061, 102_350_575),
    "dynunet": (46_315_477, 31_191_759),
    "mednext": (None, 5_553_839),
    "segresnet_ds": (None, 87_164_684),
    "swin_unetr": (None, 62_186_757),
    "unet_plus_plus": (2_410_444, 6_980_108),
    "flexible_unet": (5_366_831, None),
}
TINY = {
    "nnmamba": {"d_state": 2},
    "nnmamba_unet": {"d_state": 2},
    "swin_unetr": {"depths": [1, 1, 1, 1], "window_size": 4},
    "flexible_unet": {"backbone": "tiny", "decoder_channels": [16, 8, 8]},
}
"""What makes a network small beside the plan."""
SIZES = [(32, 32), (50, 70), (17, 1), (1, 1), (8, 16, 16), (24, 40, 20), (1, 9, 33), (1, 1, 1)]


def plan_values(dimensions, in_channels=1):
    return {
        "in_channels": in_channels,
        "num_classes": K,
        "dimensions": dimensions,
        "features": (4, 6, 8, 8),
        "blocks_per_stage": (1, 2, 1, 1),
        "patch_size": (32,) * dimensions,
        "spacing": (1.0,) * dimensions,
        **PLANS[dimensions],
    }


def build(name, dimensions, *, in_channels=1, **changes):
    """As the configuration builds it: the plan supplies what the constructor names."""
    if name == "flexible_unet":
        register_tiny_encoder()
    torch.manual_seed(0)
    supplied = plan_values(dimensions, in_channels)
    network = instantiate({**CONFIGS[name], **TINY.get(name, {}), **changes}, where="network", supplied=supplied)
    return mend_processor_convolutions(network)


def register_tiny_encoder():
    """MONAI's FlexibleUNet on an encoder that takes milliseconds: three strided convolutions."""
    from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
    from tests.networks.tiny_encoder import TinyEncoder

    if "tiny" not in FLEXUNET_BACKBONE.register_dict:
        FLEXUNET_BACKBONE.register_class(TinyEncoder)


def supervised(name):
    return CONFIGS[name].get("deep_supervision", False)


def has_running_statistics(network):
    return any(isinstance(module, _BatchNorm) for module in network.modules())


def image_of(size, channels=1, batch=2):
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1))


def as_list(outputs):
    return outputs if isinstance(outputs, list) else [outputs]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_settings_are_keywords_of_the_constructor_and_leave_out_the_plans(name):
    keys = set(CONFIGS[name]) - {"_target_"}
    named = set(inspect.signature(locate(CONFIGS[name]["_target_"], where="network", trust=False)).parameters)
    assert keys <= named
    assert named - keys <= set(plan_values(2))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_size_comes_back(name, size):
    network = build(name, len(size))
    image = image_of(size)
    with torch.no_grad():
        logits = network.eval()(image)
        outputs = network.train()(image)
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, K, *size)
    assert logits.isfinite().all()
    # Heads as declared: finest first, each on its own grid.
    assert isinstance(outputs, list) == supervised(name)
    outputs = as_list(outputs)
    assert len(outputs) == network.num_heads
    assert outputs[0].shape == logits.shape
    for finer, coarser in pairwise(outputs):
        assert coarser.shape[:2] == (2, K)
        assert all(a >= b for a, b in zip(finer.shape[2:], coarser.shape[2:], strict=True))
        assert coarser.isfinite().all()
    Target(label=torch.zeros(2, 1, *size, dtype=torch.int64)).at_level(tuple(outputs[-1].shape[2:]))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels(name, dimensions, channels):
    network = build(name, dimensions, in_channels=channels).eval()
    with torch.no_grad():
        assert network(image_of((16,) * dimensions, channels)).shape == (2, K, *(16,) * dimensions)


def test_a_divisible_grid_is_not_padded(name):
    network = build(name, 2)
    size = tuple(2 * d for d in network.divisor)
    seen = []
    for module in network.modules():
        if not list(module.children()):
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[2:]))
    outputs = as_list(network.train()(image_of(size)))
    assert tuple(seen[0]) == size
    for output, stride in zip(outputs, network.level_strides, strict=False):
        assert tuple(output.shape[2:]) == tuple(s // step for s, step in zip(size, stride, strict=True))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("deep_supervision", [True, False])
def test_every_parameter_receives_a_gradient(name, dimensions, deep_supervision):
    if deep_supervision and not supervised(name):
        pytest.skip("it has no deep supervision")
    changes = {"deep_supervision": deep_supervision} if supervised(name) else {}
    network = build(name, dimensions, **changes).train()
    # Away from the start, where whole branches may be switched off by a zero.
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    outputs = as_list(network(image_of((16, 32, 32)[-dimensions:])))
    assert len(outputs) == network.num_heads
    # A random weight of each voxel: normalisations would cancel a plain sum.
    sum((output * torch.randn(output.shape)).sum() for output in outputs).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None]
    assert without == []
    # A bias before an instance normalisation is cancelled by it: its gradient is there, and zero up to rounding.
    weights = [n for n, p in network.named_parameters() if n.endswith("weight") and p.grad.abs().max() < 1e-6]
    assert weights == []


def test_evaluation_is_the_finest_head_and_repeats(name):
    network = build(name, 2)
    image = image_of((20, 24))
    with torch.no_grad():
        finest = as_list(network.train()(image))[0]
        first, second = network.eval()(image), network(image)
    assert torch.equal(first, second)
    if not has_running_statistics(network):
        torch.testing.assert_close(first, finest)


def test_samples_of_a_batch_do_not_see_each_other(name):
    # In double precision: rounding depends on the size of a batch, and normalisations over a few voxels enlarge it.
    network = build(name, 2).eval().double()
    image = image_of((16, 16), batch=3).double()
    with torch.no_grad():
        torch.testing.assert_close(network(image)[1:2], network(image[1:2]))


def test_the_input_stays_as_it_was(name):
    network = build(name, 2).train()
    image = image_of((16, 16))
    before = image.clone()
    network(image)
    assert torch.equal(image, before)


@pytest.mark.parametrize("size", [(13, 18), (1, 1), (4, 9, 8)], ids=str)
def test_a_batch_of_one_trains(name, size):
    network = build(name, len(size)).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    before = [parameter.clone() for parameter in network.parameters()]
    label = torch.randint(0, K, (1, 1, *size), generator=torch.Generator().manual_seed(2))
    loss = DeepSupervision(CrossEntropyLoss())(network(image_of(size, batch=1)), Target(label=label))
    loss.backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_state_pickle_and_copy(name):
    network = build(name, 2).eval()
    image = image_of((12, 12))
    twin = build(name, 2).eval()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.normal_()
        assert not torch.equal(twin(image), network(image))
        twin.load_state_dict(network.state_dict())
        for other in (twin, pickle.loads(pickle.dumps(network)), copy.deepcopy(network)):
            assert torch.equal(other(image), network(image))
            assert other.num_heads == network.num_heads
            assert other.divisor == network.divisor


def test_its_state_has_tensors_only_and_each_once(name):
    network = build(name, 2)
    state = network.state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    buffers = {buffer for buffer, _ in network.named_buffers()}
    assert network.num_parameters() == sum(tensor.numel() for key, tensor in state.items() if key not in buffers)


def test_it_is_built_without_memory_at_full_size_with_the_parameters_of_its_reference(name):
    for dimensions, expected in zip((2, 3), COUNTS.get(name, (None, None)), strict=True):
        features = FULL[dimensions]
        stages = len(features)
        values = plan_values(dimensions) | {
            "features": features,
            "strides": [(1,) * dimensions, *[(2,) * dimensions] * (stages - 1)],
            "kernel_sizes": [(3,) * dimensions] * stages,
            "blocks_per_stage": (1, 3, 4, 6, 6, 6, 6, 6)[:stages],
        }
        with torch.device("meta"):
            network = instantiate(CONFIGS[name], where="network", supplied=values)
        assert all(parameter.is_meta for parameter in network.parameters())
        assert network.num_parameters() > 1e5
        assert expected is None or network.num_parameters() == expected


def compiled(network, image):
    """Whether the compiled network computes what the network does, forward and backward, and why not."""
    made = compile_network(network, image, precision="32-true")
    return made.compiled, made.reason


@pytest.mark.slow
def test_all_work_in_a_process_that_is_spawned():
    """One process for all of them: it loads torch anew."""
    networks = {name: build(name, 2).eval().requires_grad_(False) for name in NAMES}
    image = image_of((12, 12))
    # With as many threads: sums are taken in their order.
    threads = torch.get_num_threads()
    with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (threads,)) as pool:
        for name, network in networks.items():
            assert torch.equal(pool.apply(network, (image,)), network(image)), name


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", [2, 3])
def test_compiles(name, dimensions):
    """In a process of its own, since the shape checks of the tests do not compile.

    The image is large enough that no map is down to a voxel: normalised by itself it is nothing but rounding.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        done, reason = pool.apply(compiled, (build(name, dimensions), image_of((17, 28, 30)[-dimensions:])))
    assert done, reason


@pytest.mark.parametrize("dimensions", [2, 3])
def test_recomputed_stages_give_the_same_gradients(name, dimensions):
    network = build(name, dimensions).train()
    if not any(isinstance(part, Recomputing) for part in network.modules()):
        pytest.skip("it has no stages that can be computed again, and says so when that is asked for")
    image = image_of((8, 16, 16)[-dimensions:])
    gradients = []
    for on in (False, True):
        checkpoint_stages(network, on=on).zero_grad()
        sum(output.sin().sum() for output in as_list(network(image))).backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_runs_in_bfloat16(name, dimensions):
    network = build(name, dimensions).train()
    image = image_of((9, 16, 16)[-dimensions:])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = as_list(network(image))
    assert outputs[0].dtype == torch.bfloat16
    sum(output.float().square().sum() for output in outputs).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())
    with torch.no_grad():
        exact = as_list(network(image))[0]
    assert (outputs[0].float() - exact).abs().mean() < 0.1 * exact.std()


@pytest.mark.parametrize("dimensions", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_overfits_one_sample(name, dimensions):
    network = build(name, dimensions).train()
    size = (8, 16, 16)[-dimensions:]
    # Two balls in noise: class 1 and class 2 lie at different intensities.
    grid = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, s) for s in size), indexing="ij"))
    label = torch.zeros(size, dtype=torch.int64)
    label[(grid - 0.4).square().sum(0) < 0.35] = 1
    label[(grid + 0.4).square().sum(0) < 0.35] = 2
    image = label[None, None].float() + 0.3 * image_of(size, batch=1)
    target = Target(label=label[None, None])
    loss = DeepSupervision(WeightedSum({"dice": DiceLoss(), "ce": CrossEntropyLoss()}, {"dice": 1.0, "ce": 1.0}))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(120):
        network.train()
        optimizer.zero_grad()
        loss(network(image), target).backward()
        optimizer.step()
        if step % 10 == 9 and min(overlaps(network, image, label)) > 0.95:
            return
    assert min(overlaps(network, image, label)) > 0.95


def overlaps(network, image, label):
    """Dice of each class but the background."""
    with torch.no_grad():
        prediction = network.eval()(image).argmax(1)[0]
    pairs = ((prediction == k, label == k) for k in range(1, K))
    return [float(2 * (found & truth).sum() / (found.sum() + truth.sum())) for found, truth in pairs]


def test_a_custom_network_is_built_from_its_path_and_args():
    config = {**CONFIGS["custom"], "_target_": "segkit.networks.unet.UNet", "args": {"attention": True}}
    built = instantiate(config, where="network", supplied=plan_values(2))
    assert len(built.decoder.gates) == 3
