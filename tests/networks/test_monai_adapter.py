"""MONAI's networks beside themselves: the adapter changes sizes, lists and names, and no number."""

import socket

import pytest
import torch
from monai.networks import nets
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from segkit.errors import UsageError
from segkit.networks.dynunet import DynUNet
from segkit.networks.encoder_weights import adapted_stem
from segkit.networks.flexible_unet import FlexibleUNet
from segkit.networks.mednext import MedNeXt
from segkit.networks.monai_adapter import halved_levels, supervised_heads
from segkit.networks.monai_attention_unet import MonaiAttentionUnet
from segkit.networks.segresnet import SegResNetDS
from segkit.networks.swin_unetr import SwinUNETR, permuted, width
from segkit.networks.unet_plus_plus import UNetPlusPlus

FEATURES = (4, 6, 8, 8)
STRIDES = [(1, 1), (2, 2), (2, 1), (2, 2)]
TOPOLOGY = {"features": FEATURES, "strides": STRIDES, "kernel_sizes": [(3, 3)] * 4, "dimensions": 2}


def image(*size, channels=1):
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(0))


def reference(ours, theirs):
    """MONAI's network with the adapter's weights, every one of them."""
    found = theirs.load_state_dict(ours.network.state_dict(), strict=False)
    assert found.unexpected_keys == []
    return theirs, found.missing_keys


def test_dynunet_has_monais_logits_and_native_heads():
    torch.manual_seed(0)
    ours = DynUNet(1, 3, **TOPOLOGY).train()
    theirs = nets.DynUNet(
        2, 1, 3, [(3, 3)] * 4, STRIDES, STRIDES[1:], FEATURES, deep_supervision=True, deep_supr_num=2
    ).train()
    theirs, missing = reference(ours, theirs)
    assert all(name.startswith("skip_layers.") for name in missing)  # the same modules under other names
    batch = image(16, 24)
    stacked = theirs(batch).unbind(1)
    heads = ours(batch)
    assert [tuple(head.shape[2:]) for head in heads] == [(16, 24), (8, 12), (4, 12)]
    for head, expected in zip(heads, stacked, strict=True):
        steps = [a // b for a, b in zip(expected.shape[2:], head.shape[2:], strict=True)]
        # MONAI repeats each voxel of a coarse head: one of each block is the head itself.
        torch.testing.assert_close(head, expected[:, :, :: steps[0], :: steps[1]])
    torch.testing.assert_close(ours.eval()(batch), theirs.eval()(batch))


def test_dynunet_of_two_stages_is_refused():
    with pytest.raises(UsageError, match="needs more stages"):
        DynUNet(1, 3, features=(4, 8), strides=STRIDES[:2], kernel_sizes=[(3, 3)] * 2, dimensions=2)


@pytest.mark.parametrize("size", ["S", "B", "M", "L"])
def test_mednext_has_monais_logits_at_all_five_levels(size):
    torch.manual_seed(0)
    ours = MedNeXt(1, 3, features=(2,), dimensions=2, size=size).train()
    made = nets.mednext.create_mednext
    theirs = made(size, spatial_dims=2, in_channels=1, out_channels=3, deep_supervision=True)
    blocks = [len(stage) for stage in (*theirs.enc_stages, theirs.bottleneck, *theirs.dec_stages)]
    network = ours.network
    assert [len(stage) for stage in (*network.enc_stages, network.bottleneck, *network.dec_stages)] == blocks
    shapes, wide = ours.network.state_dict(), theirs.state_dict()
    assert shapes.keys() == wide.keys()
    # The same ratios of channels: MONAI's preset is 32 wide, this one 2.
    ratio = [wide[n].shape[0] / shapes[n].shape[0] for n in shapes if n.endswith("conv2.weight")]
    assert set(ratio) == {16}
    batch = image(32, 16)
    for head, expected in zip(ours(batch), network.train()(batch), strict=True):
        torch.testing.assert_close(head, expected)


def test_fewer_supervised_levels_leave_out_the_coarsest():
    torch.manual_seed(0)
    full = MedNeXt(1, 3, features=(2,), dimensions=2).train()
    fewer = MedNeXt(1, 3, features=(2,), dimensions=2, supervised_levels=2).train()
    names = {**fewer.network.state_dict()}
    state = full.network.state_dict()
    for name in names:
        # Coarsest first: what is left of the four blocks is the last.
        names[name] = state[name.replace("out_blocks.0", "out_blocks.3")]
    fewer.network.load_state_dict(names)
    batch = image(16, 16)
    expected = full(batch)
    assert len(expected) == 5
    for head, same in zip(fewer(batch), expected[:2], strict=True):
        torch.testing.assert_close(head, same)


def test_segresnet_returns_monais_list_and_leaves_a_coarse_axis_alone():
    torch.manual_seed(0)
    ours = SegResNetDS(1, 3, features=(4,), dimensions=2, spacing=(1.0, 1.0), blocks_down=(1, 1, 1)).train()
    batch = image(16, 8)
    for head, expected in zip(ours(batch), ours.network(batch), strict=True):
        torch.testing.assert_close(head, expected)
    flat = SegResNetDS(1, 3, features=(4,), dimensions=3, spacing=(4.0, 1.0, 1.0), blocks_down=(1, 1, 1, 1)).train()
    assert flat.divisor == tuple(int(d) for d in flat.network.shape_factor())
    assert flat.level_strides == ((1, 1, 1), (1, 2, 2), (1, 4, 4))
    assert flat.divisor[0] < flat.divisor[1]
    outputs = flat(image(3, 16, 16))
    assert [tuple(output.shape[2:]) for output in outputs] == [(3, 16, 16), (3, 8, 8), (3, 4, 4)]


def test_unet_plus_plus_puts_the_deepest_decoder_first():
    torch.manual_seed(0)
    ours = UNetPlusPlus(1, 3, features=(4,), dimensions=2).train()
    batch = image(16, 32)
    shallow_first = ours.network(batch)
    for head, expected in zip(ours(batch), reversed(shallow_first), strict=True):
        torch.testing.assert_close(head, expected)
    torch.testing.assert_close(ours.eval()(batch), shallow_first[-1])
    alone = UNetPlusPlus(1, 3, features=(4,), dimensions=2, deep_supervision=False)
    # Three heads of four channels fewer.
    assert ours.num_parameters() - alone.num_parameters() == 3 * 3 * (4 + 1)


def test_swin_unetr_is_monais_at_a_size_that_it_takes():
    torch.manual_seed(0)
    ours = SwinUNETR(1, 3, features=(4,), dimensions=2).eval()
    batch = image(32, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(batch), ours.network(batch))
        with pytest.raises(ValueError, match="must be divisible"):
            ours.network(image(40, 40))
        assert ours(image(40, 41)).shape == (2, 3, 40, 41)
    assert [width(first) for first in (4, 8, 16, 32, 48)] == [12, 12, 24, 48, 72]


def test_axes_are_permuted_as_the_pattern_says():
    tensor = torch.arange(24).reshape(1, 2, 3, 4)
    moved = permuted(tensor, "b c h w -> b h w c")
    assert moved.shape == (1, 3, 4, 2)
    assert moved[0, 2, 1, 1] == tensor[0, 1, 2, 1]
    assert torch.equal(permuted(moved, "n h w c -> n c h w"), tensor)


def test_attention_unet_is_monais_and_has_its_number_of_weights():
    torch.manual_seed(0)
    topology = {name: value for name, value in TOPOLOGY.items() if name != "kernel_sizes"}
    ours = MonaiAttentionUnet(1, 3, **topology).eval()
    theirs, missing = reference(ours, nets.AttentionUnet(2, 1, 3, FEATURES, STRIDES[1:]).eval())
    assert missing == []
    batch = image(16, 24)
    torch.testing.assert_close(ours(batch), theirs(batch))
    for dimensions, channels, classes, count in ((3, (16, 32, 64, 128, 256), 4, 5_909_164), (2, (64,), 1, 31_739_185)):
        features = channels if len(channels) == 5 else (64, 128, 256, 512, 1024)
        strides = [(1,) * dimensions, *[(2,) * dimensions] * 4]
        with torch.device("meta"):
            network = MonaiAttentionUnet(1, classes, features=features, strides=strides, dimensions=dimensions)
        assert network.num_parameters() == count


@pytest.mark.parametrize(("size", "count"), [("S", 5_554_836), ("B", 10_514_772), ("M", 17_537_428), ("L", 61_730_676)])
def test_mednexts_sizes(size, count):
    with torch.device("meta"):
        assert MedNeXt(1, 4, features=(32,), dimensions=3, size=size).num_parameters() == count


def test_levels_and_heads():
    assert halved_levels(3, 2) == ((1, 1), (2, 2), (4, 4))
    assert supervised_heads(4, deep_supervision=True, supervised_levels=None) == 4
    assert supervised_heads(4, deep_supervision=True, supervised_levels=6) == 4
    assert supervised_heads(4, deep_supervision=True, supervised_levels=2) == 2
    assert supervised_heads(4, deep_supervision=False, supervised_levels=2) == 1


@pytest.fixture
def no_network(monkeypatch):
    """Every way to another machine raises."""

    def refuse(*_, **__):
        raise AssertionError("a connection was asked for")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def published_efficientnet(encoder):
    """As it is downloaded elsewhere: blocks counted through, a classifier at the end, a wrapper's name before each."""
    state = {}
    for name, tensor in encoder.state_dict().items():
        parts = name.split(".")
        if parts[0] == "_blocks":
            del parts[1]
        state["module." + ".".join(parts)] = torch.randn_like(tensor) if tensor.is_floating_point() else tensor
    return state | {"module._fc.weight": torch.zeros(2, 2), "module._conv_head.weight": torch.zeros(1)}


def test_an_efficientnet_is_read_from_a_file_and_never_from_the_network(tmp_path, no_network):
    settings = {"dimensions": 2, "decoder_channels": (8,) * 5}
    encoder = FlexibleUNet(3, 2, **settings).network.encoder
    state = published_efficientnet(encoder)
    file = tmp_path / "b0.pth"
    torch.save({"state_dict": state}, file)
    network = FlexibleUNet(3, 2, **settings, encoder_weights=str(file))
    read = network.network.encoder.state_dict()
    for name, tensor in read.items():
        parts = name.split(".")
        published = ".".join(parts[:1] + parts[2:]) if parts[0] == "_blocks" else name
        assert torch.equal(tensor, state["module." + published]), name
    grey = FlexibleUNet(1, 2, **settings, encoder_weights=str(file)).network.encoder
    torch.testing.assert_close(
        grey.state_dict()["_conv_stem.weight"], state["module._conv_stem.weight"].sum(1, keepdim=True)
    )
    with pytest.raises(UsageError, match="do not fit the encoder"):
        FlexibleUNet(3, 2, **settings, backbone="efficientnet-b1", encoder_weights=str(file))


def test_groups_take_the_place_of_the_batch_with_as_many_weights_and_the_same_names():
    """EfficientNets and ResNets; every layer, also the decoder's."""
    for backbone in ("efficientnet-b0", "efficientnet-b8", "resnet10", "resnet50"):
        for dimensions in (2, 3):
            with torch.device("meta"):
                batch, group = (
                    FlexibleUNet(1, 3, dimensions=dimensions, backbone=backbone, norm=norm)
                    for norm in ("batch", "group")
                )
            assert not [name for name, part in group.named_modules() if isinstance(part, _BatchNorm)]
            assert [(name, p.shape) for name, p in group.named_parameters()] == [
                (name, p.shape) for name, p in batch.named_parameters()
            ]


def test_groups_train_and_predict_the_same_where_a_batch_does_not():
    """Two patches of 32 voxels: the coarsest maps are one voxel each, of which a batch has two."""
    image = torch.randn(2, 1, 32, 32)
    distances = {}
    for norm in ("batch", "group"):
        torch.manual_seed(0)
        network = FlexibleUNet(1, 2, dimensions=2, decoder_channels=(16,) * 5, norm=norm)
        for part in network.modules():  # chance is left out: it is not what is compared
            if hasattr(part, "drop_connect_rate"):
                part.drop_connect_rate = 0.0
        with torch.no_grad():
            for _ in range(40):
                trained = network.train()(image)
            distances[norm] = float((network.eval()(image) - trained).norm() / trained.norm())
    assert distances["group"] < 1e-5
    assert distances["batch"] > 0.1


def test_published_weights_want_the_batch(tmp_path):
    with pytest.raises(UsageError, match=r"network\.norm=batch"):
        FlexibleUNet(3, 2, dimensions=2, encoder_weights=str(tmp_path / "b0.pth"), norm="group")


def test_an_encoder_without_a_file_is_built_without_the_network(no_network):
    assert FlexibleUNet(3, 2, dimensions=2).num_parameters() == 7_060_422 - 1_693_160


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_a_grey_picture_is_answered_as_before(channels):
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64)
    grey = torch.randn(1, 1, 6, 6, dtype=torch.float64)
    before = torch.nn.functional.conv2d(grey.repeat(1, 3, 1, 1), weight)
    after = torch.nn.functional.conv2d(grey.repeat(1, channels, 1, 1), adapted_stem(weight, channels))
    torch.testing.assert_close(after, before)
    assert adapted_stem(weight, 3) is weight


class _Dangerous:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("kind", ["missing", "hostile", "no state", "torn", "terabytes"])
def test_files_that_are_no_weights_are_refused(kind, tmp_path, capsys):
    file = tmp_path / "weights.pth"
    if kind == "hostile":
        torch.save({"state_dict": _Dangerous()}, file)
    elif kind == "no state":
        torch.save([1, 2], file)
    elif kind == "terabytes":  # of the stem, whose channels would be summed
        torch.save({"_conv_stem.weight": torch.zeros(1).expand(32, 2**30, 3, 3)}, file)
    elif kind == "torn":
        file.write_bytes(b"PK\x03\x04 not a file of weights")
    with pytest.raises(UsageError, match=r"weights\.pth|no such file"):
        FlexibleUNet(3, 2, dimensions=2, decoder_channels=(8,) * 5, encoder_weights=str(file))
    assert "executed" not in capsys.readouterr().out


def test_flexible_unet_normalises_each_sample_in_eight_groups_or_as_many_as_divide_the_channels():
    network = FlexibleUNet(1, 2, dimensions=2, decoder_channels=(64, 32, 16, 12, 7), norm="group")
    found = [(part.num_groups, part.num_channels) for part in network.modules() if isinstance(part, nn.GroupNorm)]
    assert {groups for groups, channels in found if channels % 8 == 0} == {8}
    assert {pair for pair in found if pair[1] % 8} == {(4, 12), (1, 7)}
    assert not any(isinstance(part, _BatchNorm) for part in network.modules())
