"""nnU-Net's augmentation, distribution for distribution.

10,000 draws of the default recipe (configs/augmentation/nnunet.yaml) for each of three patches, at a fixed seed: an
isotropic volume, thick slices (nnU-Net's dummy 2D) and a picture. Every frequency is held against its probability by an
exact binomial test, every continuous parameter against its distribution by a Kolmogorov-Smirnov test, dependences that
must not be by a test of correlation. All tests of this file together keep a family-wise level of 1 % by Bonferroni:
the chance that a correct recipe fails any of them is at most 1 %.

The distributions are those of nnUNetTrainer.get_training_transforms of nnU-Net 2.8.1 and of batchgeneratorsv2. Where
that package is installed, what its transforms draw is compared with what ours draw, parameter by parameter.
"""

import importlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
import yaml
from scipy import stats

from segkit.augmentation.recipe import Recipe, SampleParameters
from segkit.ops.keyed_random import generator

CONFIG = Path(__file__).parents[2] / "configs" / "augmentation" / "nnunet.yaml"
DRAWS = 10_000
SEED = 20
CHANNELS = 2
FAMILY_WISE = 0.01
PATCHES = {"volume": (40, 56, 40), "slices": (16, 64, 60), "picture": (64, 60), "long picture": (40, 64)}
TESTS = 150
"""At least as many as this file makes; `test_no_more_tests_than_the_level_allows_for` counts them."""
LEVEL = FAMILY_WISE / TESTS

Draws = list[SampleParameters]
made: set[tuple[str, str]] = set()


def build(node: Any) -> Any:
    """What hydra's instantiate makes of a YAML file."""
    if not isinstance(node, dict):
        return node
    arguments = {key: build(value) for key, value in node.items() if key != "_target_"}
    if "_target_" not in node:
        return arguments
    module, name = node["_target_"].rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(**arguments)


@pytest.fixture(scope="module")
def drawn() -> Iterator[dict[str, Draws]]:
    """10,000 samples for each patch. Types are checked at every call elsewhere; here that would be most of the time."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    recipe: Recipe = build(yaml.safe_load(CONFIG.read_text()))
    try:
        yield {
            name: [
                recipe.draw(generator(SEED + k, n, 1), patch, channels=CHANNELS, flip_axes=tuple(range(len(patch))))
                for n in range(DRAWS if name != "long picture" else DRAWS // 5)
            ]
            for k, (name, patch) in enumerate(PATCHES.items())
        }
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def hold(name: str, what: str, pvalue: float) -> None:
    """One test of the family: fails where `pvalue` is not above its share of the level."""
    made.add((name, what))
    assert pvalue > LEVEL, f"{name}: {what}: p = {pvalue:.2g}, the level is {LEVEL:.2g}"


def halves(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    """As often below 1 as above, uniform on either side: batchgeneratorsv2's BGContrast."""
    below, above = stats.uniform(low, 1 - low), stats.uniform(1, high - 1)
    return lambda x: (below.cdf(x) + above.cdf(x)) / 2


def uniform(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    distribution: Callable[[np.ndarray], np.ndarray] = stats.uniform(low, high - low).cdf
    return distribution


def of(sample: SampleParameters, name: str) -> list[Any]:
    """What was drawn for the channels that were taken."""
    return [one for one in sample.intensity.get(name, ()) if one is not None]


EVENTS: dict[str, tuple[float, Callable[[SampleParameters], bool]]] = {
    "rotation": (0.2, lambda s: s.spatial.angles is not None),
    "scale": (0.2, lambda s: s.spatial.scale is not None),
    "rotation and scale": (0.04, lambda s: s.spatial.angles is not None and s.spatial.scale is not None),
    "neither": (0.64, lambda s: not s.spatial.resampled),
    "mirror 0": (0.5, lambda s: s.spatial.flips[0]),
    "mirror 1": (0.5, lambda s: s.spatial.flips[1]),
    "mirror last": (0.5, lambda s: s.spatial.flips[-1]),
    "mirror 0 and last": (0.25, lambda s: s.spatial.flips[0] and s.spatial.flips[-1]),
    "noise": (0.1, lambda s: "noise" in s.intensity),
    "blur of any of two channels": (0.2 * 0.75, lambda s: "blur" in s.intensity),
    "blur of the first": (0.1, lambda s: "blur" in s.intensity and s.intensity["blur"][0] is not None),
    "blur of both": (0.05, lambda s: len(of(s, "blur")) == 2),
    "brightness": (0.15, lambda s: "brightness" in s.intensity),
    "contrast": (0.15, lambda s: "contrast" in s.intensity),
    "low resolution of any of two channels": (0.25 * 0.75, lambda s: "low_resolution" in s.intensity),
    "low resolution of the second": (0.125, lambda s: s.intensity.get("low_resolution", (None, None))[1] is not None),
    "low resolution of both": (0.0625, lambda s: len(of(s, "low_resolution")) == 2),
    "gamma inverted": (0.1, lambda s: "gamma_inverted" in s.intensity),
    "gamma": (0.3, lambda s: "gamma" in s.intensity),
    "both gammas": (0.03, lambda s: "gamma" in s.intensity and "gamma_inverted" in s.intensity),
    "nothing of intensity": (
        0.9 * 0.85 * 0.85 * 0.85 * 0.8125 * 0.9 * 0.7,  # blur and low resolution: taken, and of neither channel
        lambda s: not s.intensity,
    ),
    "brightness below 1": (0.075, lambda s: "brightness" in s.intensity and s.intensity["brightness"][0] < 1),
    "contrast below 1": (0.075, lambda s: "contrast" in s.intensity and s.intensity["contrast"][0] < 1),
    "gamma below 1": (0.15, lambda s: "gamma" in s.intensity and s.intensity["gamma"][0] < 1),
    "both brightnesses below 1": (0.0375, lambda s: "brightness" in s.intensity and max(of(s, "brightness")) < 1),
}
"""Probability of each event for two channels and every axis mirrored."""


def continuous(draws: Draws, axes: int, limit: float) -> dict[str, tuple[list[float], Any]]:
    """Drawn values and their distribution, by parameter."""
    turned = [s.spatial.angles for s in draws if s.spatial.angles is not None]
    angles = {f"angle {k}": ([one[k] for one in turned], uniform(-limit, limit)) for k in range(len(turned[0]))}
    sigmas = {
        f"blur sigma {k}": ([one[k] for s in draws for one in of(s, "blur")], uniform(0.5, 1)) for k in range(axes)
    }
    factors = {
        name: ([one for s in draws for one in of(s, name)], halves(*limits))
        for name, limits in (
            ("brightness", (0.75, 1.25)),
            ("contrast", (0.75, 1.25)),
            ("gamma", (0.7, 1.5)),
            ("gamma_inverted", (0.7, 1.5)),
        )
    }
    return {
        **angles,
        **sigmas,
        **factors,
        "scale": ([s.spatial.scale for s in draws if s.spatial.scale is not None], uniform(0.7, 1.4)),
        "noise sigma": ([of(s, "noise")[0].sigma for s in draws if "noise" in s.intensity], uniform(0, 0.1)),
        "zoom": ([one[-1] for s in draws for one in of(s, "low_resolution")], uniform(0.5, 1)),
    }


@pytest.mark.parametrize("name", ["volume", "slices", "picture"])
def test_frequencies(drawn: dict[str, Draws], name: str):
    for event, (probability, happens) in EVENTS.items():
        count = sum(happens(sample) for sample in drawn[name])
        hold(name, event, stats.binomtest(count, DRAWS, probability).pvalue)


@pytest.mark.parametrize(("name", "limit"), [("volume", 30), ("slices", 180), ("picture", 180)])
def test_continuous_parameters(drawn: dict[str, Draws], name: str, limit: float):
    parameters = continuous(drawn[name], len(PATCHES[name]), limit)
    for parameter, (values, distribution) in parameters.items():
        assert len(values) > 500
        hold(name, parameter, stats.kstest(values, distribution).pvalue)


def test_a_long_picture_turns_little(drawn: dict[str, Draws]):
    """Its sides differ by more than one half: 15 degrees to either side."""
    angles = [s.spatial.angles for s in drawn["long picture"] if s.spatial.angles is not None]
    hold("long picture", "angle", stats.kstest([one[0] for one in angles], uniform(-15, 15)).pvalue)


def test_what_is_drawn_once_and_what_for_each_axis_or_channel(drawn: dict[str, Draws]):
    for name, patch in PATCHES.items():
        draws, thin = drawn[name], name == "slices"
        assert {len(s.spatial.angles) for s in draws if s.spatial.angles} == {3 if name == "volume" else 1}
        for one in (one for s in draws for one in of(s, "low_resolution")):
            assert one[0] == (1.0 if thin else one[-1])  # thick slices keep theirs
            assert len(set(one[thin:])) == 1
        assert all(len(set(one)) == len(patch) for s in draws for one in of(s, "blur"))
        assert all(len({one.sigma for one in of(s, "noise")}) == 1 for s in draws if "noise" in s.intensity)
        assert all(len({one.seed for one in of(s, "noise")}) == CHANNELS for s in draws if "noise" in s.intensity)
        for factor in ("brightness", "contrast", "gamma", "gamma_inverted"):
            assert all(len(set(of(s, factor))) == CHANNELS for s in draws if factor in s.intensity)


def test_parameters_do_not_depend_on_one_another(drawn: dict[str, Draws]):
    draws = drawn["volume"]
    flags = {event: [happens(s) for s in draws] for event, (_, happens) in EVENTS.items()}
    singles = ("rotation", "scale", "mirror 0", "noise", "brightness", "contrast", "gamma inverted", "gamma")
    for first, second in itertools.pairwise(singles):
        hold("independence", f"{first}, {second}", stats.pearsonr(flags[first], flags[second]).pvalue)
    pairs = {
        "two angles": [s.spatial.angles[:2] for s in draws if s.spatial.angles],
        "first and last angle": [s.spatial.angles[::2] for s in draws if s.spatial.angles],
        "gammas of two channels": [s.intensity["gamma"] for s in draws if "gamma" in s.intensity],
        "widths of two axes": [one[:2] for s in draws for one in of(s, "blur")],
        "zooms of two channels": [[one[0] for one in of(s, "low_resolution")] for s in draws],
        "one sample and the next": [
            (a.intensity["gamma"][0], b.intensity["gamma"][0])
            for a, b in itertools.pairwise(draws)
            if "gamma" in a.intensity and "gamma" in b.intensity
        ],
    }
    for name, values in pairs.items():
        first, second = np.array([pair for pair in values if len(pair) == 2]).T
        assert len(first) > 400
        hold("independence", name, stats.spearmanr(first, second).pvalue)


PEER_DRAWS = 4_000


def peer_parameters(transform: Any, image: torch.Tensor) -> dict[str, list[float]]:
    """What the transforms of a composition draw for many images, by our names, each as often as it is applied."""
    values: dict[str, list[float]] = {}
    inverted = {1.0: "gamma_inverted", 0.0: "gamma"}
    for one in transform.transforms:
        inner = getattr(one, "transform", one)
        kind = type(inner).__name__
        for _ in range(PEER_DRAWS if kind != "SpatialTransform" else PEER_DRAWS // 4):
            if inner is not one:
                applied = one.get_parameters()["apply_transform"]
                values.setdefault(f"applied {kind} {getattr(inner, 'p_invert_image', '')}", []).append(applied)
            if kind not in NAMES and kind != "SpatialTransform":
                continue
            drawn = inner.get_parameters(image=image)
            if kind == "SpatialTransform":
                affine = drawn["affine"]
                values.setdefault("resampled", []).append(affine is not None)
                if affine is not None:
                    values.setdefault("volume ratio", []).append(np.linalg.det(affine))
                    values.setdefault("trace", []).append(np.trace(affine))
                    values.setdefault("off diagonal", []).append(affine[0, 1])
                continue
            name = NAMES[kind] or inverted[inner.p_invert_image]
            for value in PICK[kind](drawn):
                values.setdefault(name, []).append(float(value))
    return values


NAMES = {
    "GaussianNoiseTransform": "noise sigma",
    "GaussianBlurTransform": "blur sigma",
    "MultiplicativeBrightnessTransform": "brightness",
    "ContrastTransform": "contrast",
    "SimulateLowResolutionTransform": "zoom",
    "GammaTransform": None,
    "MirrorTransform": "mirrored axes",
}
PICK: dict[str, Callable[[dict[str, Any]], Any]] = {
    "GaussianNoiseTransform": lambda drawn: [drawn["sigmas"]],
    "GaussianBlurTransform": lambda drawn: [sigma for channel in drawn["sigmas"] for sigma in channel],
    "MultiplicativeBrightnessTransform": lambda drawn: drawn["multipliers"],
    "ContrastTransform": lambda drawn: drawn["multipliers"],
    "SimulateLowResolutionTransform": lambda drawn: [scales[-1] for scales in drawn["scales"]],
    "GammaTransform": lambda drawn: drawn["gamma"],
    "MirrorTransform": lambda drawn: [len(drawn["axes"])],
}
PROBABILITIES = {
    "applied GaussianNoiseTransform ": "noise",
    "applied GaussianBlurTransform ": "blur",
    "applied MultiplicativeBrightnessTransform ": "brightness",
    "applied ContrastTransform ": "contrast",
    "applied SimulateLowResolutionTransform ": "low_resolution",
    "applied GammaTransform 1.0": "gamma_inverted",
    "applied GammaTransform 0.0": "gamma",
}


def test_nnunets_own_transforms_draw_the_same(drawn: dict[str, Draws]):
    """Two samples, ours and batchgeneratorsv2's, with the settings that nnU-Net's own trainer gives it."""
    pytest.importorskip("batchgeneratorsv2")
    trainer = pytest.importorskip("nnunetv2.training.nnUNetTrainer.nnUNetTrainer").nnUNetTrainer
    from segkit.augmentation.spatial import source_matrix

    patch, draws = PATCHES["volume"], drawn["volume"]
    angle = 30 / 360 * 2 * np.pi
    transform = trainer.get_training_transforms((8, 11, 8), (-angle, angle), None, (0, 1, 2), False)
    theirs = peer_parameters(transform, torch.zeros(CHANNELS, 8, 11, 8))
    turned = [source_matrix(s.spatial, 3) for s in draws if s.spatial.resampled]
    parameters = continuous(draws, len(patch), 30)
    ours = {name: parameters[name][0] for name in ("brightness", "contrast", "gamma", "gamma_inverted", "zoom")}
    ours |= {
        "noise sigma": parameters["noise sigma"][0],
        "blur sigma": [sigma for k in range(3) for sigma in parameters[f"blur sigma {k}"][0]],
        "volume ratio": [np.linalg.det(matrix) for matrix in turned],
        "trace": [np.trace(matrix) for matrix in turned],
        "off diagonal": [matrix[0, 1] for matrix in turned],
    }
    for name, values in ours.items():
        assert len(theirs[name]) > 200
        # Rounded: a matrix's determinant is 1 in one package and 1 - 1e-16 in the other.
        hold("peer", name, stats.ks_2samp(np.round(values, 6), np.round(theirs[name], 6)).pvalue)
    mirrored = np.bincount(np.array(theirs["mirrored axes"], dtype=int), minlength=4)
    expected = np.bincount([sum(s.spatial.flips) for s in draws], minlength=4)
    hold("peer", "mirrored axes", stats.chi2_contingency([mirrored, expected]).pvalue)
    recipe: Recipe = build(yaml.safe_load(CONFIG.read_text()))
    for theirs_name, name in PROBABILITIES.items():
        applied, probability = theirs[theirs_name], recipe.intensity[name].probability
        hold("peer", f"{name} applied", stats.binomtest(int(sum(applied)), len(applied), probability).pvalue)
    resampled = theirs["resampled"]
    hold("peer", "resampled", stats.binomtest(int(sum(resampled)), len(resampled), 0.36).pvalue)
    order = [PROBABILITIES[key] for key in theirs if key in PROBABILITIES]
    assert order == list(recipe.intensity)


def test_nnunets_loader_cuts_the_same():
    """Our source for an isotropic patch is the patch that nnU-Net's loader is told to cut."""
    cut = pytest.importorskip("nnunetv2.training.data_augmentation.compute_initial_patch_size").get_patch_size
    recipe: Recipe = build(yaml.safe_load(CONFIG.read_text()))
    angle = 30 / 360 * 2 * np.pi
    for side in (32, 64, 96, 128, 160):
        theirs = cut(np.array((side,) * 3), (-angle, angle), (-angle, angle), (-angle, angle), (0.85, 1.25))
        assert recipe.source_size((side,) * 3) == tuple(int(one) for one in theirs)


def test_no_more_tests_than_the_level_allows_for(drawn: dict[str, Draws]):
    """Counts the family; run alone it counts only what ran before it."""
    assert len(made) <= TESTS
