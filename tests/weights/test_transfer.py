"""From a file's tensors to a network's state, with what became of each."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from segkit.errors import UsageError
from segkit.networks.residual_unet import ResidualUNet
from segkit.networks.unet import UNet
from segkit.weights.source import Source
from segkit.weights.transfer import match_names, refuse_inexact, transfer

TOPOLOGY = {
    "features": (4, 6, 8),
    "strides": ((1, 1), (2, 2), (2, 2)),
    "kernel_sizes": ((3, 3),) * 3,
    "dimensions": 2,
}
CLASSES = ("background", "a", "b")


def unet(channels=1, classes=3, **changes):
    return UNet(channels, classes, **{**TOPOLOGY, **changes})


def source_of(network, **facts):
    return Source(network.state_dict(), "plain", "a file", **facts)


def fit(network, source, channels=("T1",), classes=CLASSES):
    return transfer(network, source, channels=channels, classes=classes, patch_size=(16, 16))


def fates(found):
    return {row.name: row.fate for row in found.rows}


def test_the_same_network_is_loaded_whole():
    trained, network = unet(), unet()
    found = fit(network, source_of(trained))
    assert {row.fate for row in found.rows} == {"loaded"}
    refuse_inexact(found, source_of(trained))
    network.load_state_dict(found.state)
    image = torch.randn(1, 1, 16, 16)
    assert torch.equal(network.eval()(image), trained.eval()(image))


def test_one_channel_to_two_and_three_classes_to_five():
    """The table of the adaptation: the stem, the heads, and nothing else; logits of the known classes stay."""
    trained, network = unet(), unet(2, 5, supervised_levels=1)
    wanted = ("background", "c", "b", "a", "d")
    found = fit(network, source_of(trained, channels=("T1",), classes=CLASSES), ("FLAIR", "T1"), wanted)
    adapted = {row.name: row.told for row in found.rows if row.fate == "adapted"}
    by_name = "background by name, c new, b by name, a by name, d new"
    assert adapted == {
        "encoder.stages.0.0.convs.0.conv.weight": "FLAIR new, from zero, T1 by name",
        "decoder.seg_layers.1.weight": by_name,
        "decoder.seg_layers.1.bias": by_name,
    }
    unused = {row.name for row in found.rows if row.fate == "unused"}
    assert unused == {"decoder.seg_layers.0.weight", "decoder.seg_layers.0.bias"}
    network.load_state_dict(found.state)
    image = torch.randn(1, 2, 16, 16)
    logits, known = network.eval()(image), trained.eval()(image[:, 1:])
    assert torch.allclose(logits[:, [0, 3, 2]], known, atol=1e-5)


def test_training_from_adapted_weights_lowers_the_loss():
    trained, network = unet(), unet(2, 5, deep_supervision=False)
    source = source_of(trained, channels=("T1",), classes=CLASSES)
    network.load_state_dict(fit(network, source, ("FLAIR", "T1"), ("background", "c", "b", "a", "d")).state)
    image, label = torch.randn(2, 2, 16, 16), torch.randint(0, 5, (2, 16, 16))
    optimizer, losses = torch.optim.Adam(network.parameters(), 1e-2), []
    for _ in range(10):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network.train()(image), label)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    stem = network.encoder.stages[0][0].convs[0].conv.weight
    assert float(stem.detach()[:, 0].abs().max()) > 0  # what began at zero learns


def test_an_encoder_alone_leaves_the_decoder_as_it_was_drawn():
    trained = ResidualUNet(1, 2, **TOPOLOGY, blocks_per_stage=1)
    network = ResidualUNet(1, 3, **TOPOLOGY, blocks_per_stage=1)
    drawn = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    tensors = {f"module.{name}": tensor for name, tensor in trained.encoder.state_dict().items()}
    found = fit(network, Source(tensors, "plain", "an encoder"))
    for name, fate in fates(found).items():
        assert fate == ("loaded" if name.startswith("encoder.") else "initial")
        expected = trained.state_dict()[name] if fate == "loaded" else drawn[name]
        assert torch.equal(found.state[name], expected)


def test_what_does_not_fit_is_named_with_both_shapes():
    found = fit(unet(features=(4, 6, 10)), source_of(unet()))
    rows = {row.name: row for row in found.rows}
    assert rows["encoder.stages.2.0.convs.0.conv.weight"].fate == "initial"
    assert rows["encoder.stages.2.0.convs.0.conv.weight"].told == "8 x 6 x 3 x 3 in the file, 10 x 6 x 3 x 3 here"
    assert rows["encoder.stages.1.0.convs.0.conv.weight"].fate == "loaded"


def test_kernels_take_their_size_but_upsampling_does_not():
    """A transposed kernel is its stride: other strides are another grid, not another kernel."""
    flat = {"kernel_sizes": ((3, 1), (3, 3), (3, 3)), "strides": ((1, 1), (2, 1), (2, 2))}
    found = fit(unet(**flat), source_of(unet()))
    rows = {row.name: row for row in found.rows}
    assert rows["encoder.stages.0.0.convs.0.conv.weight"].told == "kernel 3 x 3 to 3 x 1"
    assert rows["decoder.transpconvs.0.weight"].fate == "loaded"
    assert rows["decoder.transpconvs.1.weight"].fate == "initial"


def test_classes_in_another_order_are_reordered():
    trained, network = unet(), unet()
    found = fit(network, source_of(trained, classes=("background", "b", "a")))
    network.load_state_dict(found.state)
    image = torch.randn(1, 1, 16, 16)
    assert torch.allclose(network.eval()(image)[:, [0, 2, 1]], trained.eval()(image), atol=1e-6)


def test_classes_whose_layer_is_not_known_are_refused():
    network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Softplus())
    with pytest.raises(UsageError, match="classes of the weights"):
        fit(network, source_of(network, classes=("background", "b", "a")))
    assert fit(network, source_of(network, classes=CLASSES)).count("loaded") == 2


def test_strict_refuses_what_is_not_the_files_own():
    source = replace(source_of(unet()), overrides=("network=unet", "plan.features=[4,6,8]"))
    with pytest.raises(UsageError, match=r"initial, such as encoder\.stages\.2") as refused:
        refuse_inexact(fit(unet(features=(4, 6, 10)), source), source)
    assert refused.value.mend == "network=unet plan.features=[4,6,8]"
    fewer = fit(unet(supervised_levels=1), source)
    with pytest.raises(UsageError, match="2 unused"):
        refuse_inexact(fewer, source)
    refuse_inexact(fewer, replace(source, layout="nnunet"))  # it builds a head a level, trained or not


def test_a_file_of_something_else_is_refused_with_what_would_fit():
    source = Source({"blocks.0.weight": torch.zeros(3)}, "plain", "a file")
    with pytest.raises(UsageError, match=r"blocks\.0\.weight; the network: encoder\.stages"):
        fit(unet(), source)


def test_numbers_of_another_kind_are_left_out():
    trained = unet().state_dict()
    trained["decoder.seg_layers.0.bias"] = torch.zeros(3, dtype=torch.int64)
    trained["decoder.seg_layers.1.bias"] = torch.ones(3, dtype=torch.float16)
    found = fit(unet(), Source(trained, "plain", "a file"))
    assert fates(found)["decoder.seg_layers.0.bias"] == "initial"
    assert found.state["decoder.seg_layers.1.bias"].dtype == torch.float32


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        (["a.w", "b.w"], {"a.w": "a.w", "b.w": "b.w"}),
        (["module._orig_mod.a.w"], {"a.w": "module._orig_mod.a.w"}),
        (["net.a.w", "net.b.w", "a.w"], {"a.w": "net.a.w", "b.w": "net.b.w"}),
        (["stages.0"], {"encoder.stages.0": "stages.0"}),
        (["net.backbone.stages.0"], {"encoder.stages.0": "net.backbone.stages.0"}),
        (["other"], {}),
    ],
)
def test_names_are_the_same_but_for_what_stands_before_them(theirs, expected):
    assert match_names(theirs, ["a.w", "b.w", "encoder.stages.0"]) == expected
