"""R22: one seed, one result, to the bit: with any number of loader processes, kept or not, cases prepared or not."""

import itertools

import pytest
from tests.reliability.fork_server import verb
from tests.reliability.test_r01_kill import fingerprint

pytestmark = pytest.mark.alone

FAST = [(1, False, "warm"), (2, True, "cold")]
FULL = list(itertools.product((0, 1, 2), (True, False), ("cold", "warm")))


def test_the_same_seed_gives_the_same_bits(forks, train_argv, tmp_path, size):
    found = {}
    for workers, persistent, cache in [(0, True, "cold"), *size(FAST, FULL)]:
        name = f"run-{len(found)}"
        folder = tmp_path / "caches" / (name if cache == "cold" else "run-0")
        assert folder.exists() == (cache == "warm")
        words = [f"data.workers={workers}", f"data.persistent_workers={str(persistent).lower()}"]
        argv = train_argv(name, *words, f"paths.cache={folder}", "trainer.ema_decay=0.9")
        child = forks.start(verb, "train", *argv, output=tmp_path / name)
        assert child.wait() == 0, child.stderr
        found[name] = fingerprint(tmp_path / "runs" / name)
    assert [name for name in found if found[name] != found["run-0"]] == []


def test_another_seed_gives_others(forks, train_argv, tmp_path):
    """Without this the test above could not fail."""
    found = []
    for seed in (0, 1):
        argv = train_argv(f"seed-{seed}", f"seed={seed}", "trainer.max_epochs=1")
        child = forks.start(verb, "train", *argv, output=tmp_path / f"seed-{seed}")
        assert child.wait() == 0, child.stderr
        found.append(fingerprint(tmp_path / "runs" / f"seed-{seed}"))
    assert found[0].keys() == found[1].keys()
    weights = next(name for name in found[0] if name.endswith("model.safetensors"))
    assert found[0][weights] != found[1][weights]
