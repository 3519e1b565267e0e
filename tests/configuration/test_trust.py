"""What a run folder may have built; the targets that execute something are in the guarantee R13."""

import inspect

import monai
import pytest
import torch

from segkit.configuration.instantiate import instantiate, locate
from segkit.configuration.trust import refuse_fetching, require_trusted_class, require_trusted_path
from segkit.errors import UsageError


@pytest.mark.parametrize("path", ["torch.nn.Conv3d", "monai.networks.nets.UNet", "segkit.module.schedules.poly"])
def test_parts_of_a_model_are_trusted(path: str) -> None:
    assert locate(path, where="network", trust=False).__name__ == path.rpartition(".")[2]


@pytest.mark.parametrize(
    "path", ["torch.nnevil.Net", "torch.load", "segkit.workflows.train.run", "monai.bundle.run", ""]
)
def test_nothing_else_is_even_imported(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.import_module", lambda name: pytest.fail(f"imported {name}"))
    with pytest.raises(UsageError, match="trust=true"):
        require_trusted_path(path, where="network")
    with pytest.raises(UsageError, match="trust=true"):
        locate(path, where="network", trust=False)


def test_a_class_is_trusted_by_its_home() -> None:
    require_trusted_class(torch.nn.Linear, "torch.nn.Linear", where="network")
    mine = type("Mine", (torch.nn.Module,), {"__module__": "elsewhere"})
    for found in (mine, torch.load, monai.losses.PerceptualLoss, torch.nn.functional.relu, int):
        with pytest.raises(UsageError, match="is not built from a run folder"):
            require_trusted_class(found, "torch.nn.x", where="network")


def test_a_monai_network_without_weights_from_elsewhere_is_built() -> None:
    node = {
        "_target_": "monai.networks.nets.UNet",
        "args": {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]},
    }
    assert instantiate(node, where="network")(torch.zeros(1, 1, 16, 16)).shape == (1, 2, 16, 16)


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        ({"pretrained": True}, True),
        ({"pretrained": False}, False),
        ({"pretrained_url": "http://x"}, True),
        ({"pretrained_url": None}, False),
        ({"use_checkpoint": True}, False),
        ({"checkpoint": "a.pth"}, True),
        ({"drop_path_rate": 0.1}, False),
        ({"filters": [1, 2]}, False),
    ],
)
def test_arguments_that_fetch(arguments: dict[str, object], refused: bool) -> None:
    signature = inspect.signature(lambda **anything: None)
    if not refused:
        refuse_fetching(signature, arguments, target="x", where="network")
        return
    with pytest.raises(UsageError, match="read or download") as caught:
        refuse_fetching(signature, arguments, target="x", where="network")
    assert caught.value.where == f"network.{next(iter(arguments))}"


def test_a_default_that_fetches_is_refused_too() -> None:
    signature = inspect.signature(lambda width=1, pretrained=True: None)
    with pytest.raises(UsageError, match="pretrained is 'True'"):
        refuse_fetching(signature, {"width": 2}, target="x", where="network")
