"""Names and values as MLflow takes them."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

KEY_LENGTH, VALUE_LENGTH, TAG_LENGTH = 250, 6000, 5000
_STRANGE = re.compile(r"[^\w\-. :/]", flags=re.ASCII)


def plain_key(key: str) -> str:
    """`key` in letters, digits and `_-. :/`, at most 250 characters, and different keys stay different.

    A key that had to be changed ends in eight digits of its own sha256.
    """
    plain = _STRANGE.sub("_", key).strip("/ ") or "_"
    while "//" in plain or ".." in plain:
        plain = plain.replace("//", "/").replace("..", ".")
    if plain == key and len(plain) <= KEY_LENGTH:
        return key
    return f"{plain[: KEY_LENGTH - 9]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def flat(config: Mapping[str, Any], *, prefix: str = "") -> dict[str, str]:
    """Leaves of a nested configuration as `group.key: value`; lists stay one value, empty groups are left out.

    Values longer than 6000 characters end in "...": the whole is in the artifact config.yaml.
    """
    leaves: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            leaves |= flat(value, prefix=f"{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            leaves[plain_key(name)] = text if len(text) <= VALUE_LENGTH else text[: VALUE_LENGTH - 3] + "..."
    return leaves


def by_epoch(key: str) -> bool:
    """Whether MLflow's step of `key` is the epoch; the optimizer step otherwise. One unit a key, for ever."""
    return key.startswith(("val/", "time/", "memory/", "selected/")) or key.endswith("_epoch")
