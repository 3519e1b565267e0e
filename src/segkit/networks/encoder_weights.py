"""Published weights of classifiers, from a file on this machine into an encoder.

Layouts: the state dict of a module with the encoder's names (torchvision's ResNets have those of MONAI's), EfficientNet
as lukemelas' package and its many descendants write it (blocks counted through, not by stage), and any of the two
below `state_dict` or with `module.` before each name. Files are read as tensors and nothing else.

The first convolution is adapted to the image's channels: where they are C and the file's are R, each of them gets

    W'[:, c] = sum over r of W[:, r] / C

so that an image with the same content in all channels is answered as a grey picture was.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from segkit.errors import UsageError
from segkit.ops.dense import require_dense

_KEY = "network.encoder_weights"
_STAGE = re.compile(r"^(_blocks)\.\d+\.(\d+\.)")
_CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.", "fc.", "classifier.")
_SHOWN = 4


def load_encoder_weights(encoder: nn.Module, path: str) -> None:
    """Put the weights of a file into an encoder, all of them or none.

    Args:
        encoder: Changed in place.
        path: A safetensors file, or one of `torch.save`.

    Raises:
        UsageError: There is no such file, it holds something else than tensors that are all there, or they do not
            fit.
    """
    file = Path(path).expanduser()
    published = _published(_read(file))
    wanted = encoder.state_dict()
    first = next(name for name, tensor in wanted.items() if tensor.ndim > 2)
    found: dict[str, Tensor] = {}
    for name, tensor in wanted.items():
        candidate = published.pop(_STAGE.sub(r"\1.\2", name), None)
        if candidate is None:
            candidate = published.pop(name, None)
        if candidate is None and name.endswith("num_batches_tracked"):
            candidate = tensor
        if candidate is not None and name == first:
            candidate = adapted_stem(candidate, tensor.shape[1])
        if candidate is not None:
            found[name] = candidate
    wrong = [name for name, tensor in found.items() if tensor.shape != wanted[name].shape]
    missing = [name for name in wanted if name not in found]
    unread = [name for name in published if not name.startswith(_CLASSIFIER)]
    if wrong or missing or unread:
        kinds = {"of another shape": wrong, "not in the file": missing, "not in the encoder": unread}
        told = [f"{len(names)} {kind} ({', '.join(names[:_SHOWN])})" for kind, names in kinds.items() if names]
        raise UsageError(
            "the weights do not fit the encoder",
            where=_KEY,
            why=f"of the tensors of {file.name}, {'; '.join(told)}",
            mend="choose the network.backbone that the file was made with, or network.encoder_weights=null",
        )
    encoder.load_state_dict(found)


def adapted_stem(weight: Tensor, channels: int) -> Tensor:
    """The first convolution for another number of channels; see the module's text.

    Args:
        weight: (D, R, *kernel).
        channels: C.

    Returns:
        (D, C, *kernel).
    """
    if channels == weight.shape[1]:
        return weight
    return (weight.sum(1, keepdim=True) / channels).repeat(1, channels, *[1] * (weight.ndim - 2))


def _read(file: Path) -> Mapping[str, Tensor]:
    if not file.is_file():
        raise UsageError("there is no such file", where=_KEY, why=f"{file} was asked for")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
        require_dense(state)
    except Exception as error:  # a hostile pickle makes the unpickler raise whatever it likes
        why = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
        raise UsageError(f"{file.name} cannot be read as tensors", where=_KEY, why=why) from error
    while isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UsageError(f"{file.name} is no state dict", where=_KEY, why=f"it holds a {type(state).__name__}")
    return state


def _published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the name that wrappers of several devices put before each."""
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}
