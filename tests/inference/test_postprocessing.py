"""Each operation by hand in two and three axes, and what holds of all of them whatever the map is."""

import json
import math
from itertools import product

import numpy as np
import pytest

from segkit.errors import UsageError
from segkit.inference.postprocessing import (
    ClassRule,
    PostProcessing,
    fill_holes,
    keep_largest,
    remove_small,
)
from segkit.types import Labels

LABELS = Labels(("background", "a", "b"), (0, 1, 2))
NUCLEI = Labels(("background", "object"), (0, 1), "instances")


def grid(*rows):
    """`.` is background, `-` ignored, a digit its class."""
    return np.array([[{".": 0, "-": -1}.get(c, 0) if c in ".-" else int(c) for c in row] for row in rows], np.int16)


def is_(found, *rows):
    np.testing.assert_array_equal(found, grid(*rows))


# A component of 4, one of 3 that touches it by a corner, one of 2; class 2 beside them.
ISLANDS = grid(
    "11.....2",
    "11......",
    "..111..2",
    "........",
    "11....-1",
)


def test_small_components_go_and_one_of_just_the_size_stays():
    is_(remove_small(ISLANDS, 1, voxels=2), "11.....2", "11......", "..111..2", "........", "11....-.")
    is_(remove_small(ISLANDS, 1, voxels=3), "11.....2", "11......", "..111..2", "........", "......-.")
    assert remove_small(ISLANDS, 1, voxels=1) is ISLANDS
    assert not (remove_small(ISLANDS, 1, voxels=8) == 1).any()


def test_connectivity_decides_what_a_component_is():
    """By corners 4 and 3 are one of 7; by faces they are two."""
    faces = remove_small(ISLANDS, 1, voxels=4, connectivity="faces")
    is_(faces, "11.....2", "11......", ".......2", "........", "......-.")
    is_(keep_largest(ISLANDS, 1), "11.....2", "11......", "..111..2", "........", "......-.")
    is_(keep_largest(ISLANDS, 1, connectivity="faces"), "11.....2", "11......", ".......2", "........", "......-.")


def test_all_classes_together_are_one_foreground():
    touching = grid("11..2", "..22.", ".....", "222..")
    is_(keep_largest(touching), "11..2", "..22.", ".....", ".....")
    is_(keep_largest(touching, connectivity="faces"), ".....", ".....", ".....", "222..")
    is_(keep_largest(touching, 2), "11..2", "..22.", ".....", ".....")  # 3 and 3: the first in scan order stays


def test_of_equal_components_the_first_in_scan_order_stays():
    is_(keep_largest(grid("..11", "....", "11.."), 1), "..11", "....", "....")


def test_holes_are_background_that_one_class_encloses():
    label = grid(
        "1111.111.222",
        "1..1.1.1.2.2",
        "1.11.121.222",
        "111.....1111",
        "........1..1",
        "..1.....1...",
        ".1.1....1111",
        "..1.........",
    )
    is_(
        fill_holes(label, 1),
        "1111.111.222",
        "1111.1.1.2.2",  # the second one has class 2 at its border, the third is class 2's
        "1111.121.222",
        "111.....1111",
        "........1..1",  # open to the border of the image
        "..1.....1...",
        ".111....1111",  # corners hold, and background does not pass between them
        "..1.........",
    )
    is_(fill_holes(label, 2)[:3, 9:], "222", "222", "222")
    corners = fill_holes(label, 1, connectivity="faces")
    assert corners[6, 2] == 0  # where corners do not join the class, they join the background
    assert corners[1, 1] == 1


def test_neither_the_border_nor_ignored_voxels_enclose():
    is_(fill_holes(grid("1.1", "111"), 1), "1.1", "111")
    is_(fill_holes(grid("1-1", "1.1", "111"), 1), "1-1", "1.1", "111")
    is_(fill_holes(grid("11", "11"), 1), "11", "11")


def shell(size=7):
    """A hollow cube of class 1 in three axes, with one voxel of it and one of class 2 in its midst."""
    label = np.zeros((size,) * 3, dtype=np.int16)
    label[1:-1, 1:-1, 1:-1] = 1
    label[2:-2, 2:-2, 2:-2] = 0
    return label


def test_in_three_axes_a_cavity_is_a_hole_and_a_tunnel_is_none():
    assert np.count_nonzero(fill_holes(shell(), 1)) == 5**3
    tunnel = shell()
    tunnel[3, 3, 1] = 0
    assert fill_holes(tunnel, 1) is tunnel
    inhabited = shell()
    inhabited[3, 3, 3] = 2
    assert fill_holes(inhabited, 1) is inhabited
    rules = PostProcessing((ClassRule("a", holes="fill"), ClassRule("b", min_mm3=2.0)))
    filled = rules.apply(inhabited, spacing=(1.0, 1.0, 1.0), labels=LABELS)
    assert np.count_nonzero(filled == 1) == 5**3  # what is removed within a structure leaves no hole in it


def test_in_three_axes_corners_join():
    label = np.zeros((4, 4, 4), dtype=np.int16)
    label[0, 0, 0] = label[1, 1, 1] = label[3, 3, 3] = 1
    assert np.argwhere(keep_largest(label, 1)).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert np.argwhere(keep_largest(label, 1, connectivity="faces")).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize(("spacing", "left"), [((1.0, 1.0), 3), ((2.0, 0.5), 3), ((0.5, 1.0), 2), ((0.5, 0.5), 0)])
def test_sizes_are_in_mm(spacing, left):
    """Components of 4, 3 and 2 voxels against 2 mm^2; voxels of 1, 1, 1/2 and 1/4 mm^2: 2, 2, 4 and 8 voxels."""
    label = grid("1111.", ".....", "111..", ".....", "11...")
    rules = PostProcessing((ClassRule("a", min_mm3=2.0),))
    kept = rules.apply(label, spacing=spacing, labels=LABELS)
    sizes = np.count_nonzero(kept, axis=1)[::2]
    assert np.count_nonzero(sizes) == {3: 3, 2: 1, 0: 0}[left]
    assert set(sizes) <= {0, 4, 3, 2}


def drawn(seed):
    """A map at random, full of small pieces and holes, and rules at random."""
    rng = np.random.default_rng(seed)
    dimensions = 2 + seed % 2
    shape = tuple(rng.integers(1, 13 if dimensions == 2 else 8, dimensions))
    label = rng.choice(4, size=shape, p=[0.45, 0.35, 0.12, 0.08]).astype(np.int16) - (seed % 5 == 0)
    label = np.where(label == 3, 0, label)
    spacing = tuple(rng.uniform(0.3, 2, dimensions).tolist())
    voxel = math.prod(spacing)
    rules = tuple(
        ClassRule(
            name,
            min_mm3=float(rng.choice([0, 2, 4]) * voxel),
            keep="largest" if rng.random() < 0.4 else "all",
            holes="fill" if rng.random() < 0.6 else "leave",
        )
        for name in ("b", "a")[: rng.integers(1, 3)]
    )
    foreground = "largest" if rng.random() < 0.4 else "all"
    connectivity = "full" if rng.random() < 0.5 else "faces"
    return label, spacing, PostProcessing(rules, foreground, connectivity)


@pytest.mark.parametrize("seed", range(24))
def test_twice_is_once_and_what_is_not_named_stays(seed):
    label, spacing, rules = drawn(seed)
    given = label.copy()
    once = rules.apply(label, spacing=spacing, labels=LABELS)
    np.testing.assert_array_equal(label, given)
    np.testing.assert_array_equal(rules.apply(once, spacing=spacing, labels=LABELS), once)
    assert once.dtype == label.dtype
    # Ignored voxels stay; a voxel changes to background or, from background, to a class whose holes are filled.
    np.testing.assert_array_equal(once < 0, given < 0)
    filled = [LABELS.names.index(rule.name) for rule in rules.rules if rule.holes == "fill"]
    assert np.isin(once[(given <= 0) & (once != given)], filled).all()
    named = [LABELS.names.index(rule.name) for rule in rules.rules]
    if rules.foreground == "all":
        for index in {1, 2} - set(named):
            np.testing.assert_array_equal(once == index, given == index)
    assert set(np.unique(once[given > 0])) <= {0, *np.unique(given[given > 0]).tolist()}


@pytest.mark.parametrize("seed", range(6))
def test_axes_and_directions_do_not_matter_but_for_ties(seed):
    """Sizes and holes have no direction; the largest one has none either where it is alone."""
    label, spacing, rules = drawn(seed)
    free = PostProcessing(tuple(ClassRule(r.name, r.min_mm3, "all", r.holes) for r in rules.rules), "all", "full")
    expected = free.apply(label, spacing=spacing, labels=LABELS)
    for axes in product((False, True), repeat=label.ndim):
        flipped = tuple(axis for axis, turned in enumerate(axes) if turned)
        found = free.apply(np.flip(label, flipped), spacing=spacing, labels=LABELS)
        np.testing.assert_array_equal(np.flip(found, flipped), expected)
    turned = free.apply(label.T, spacing=spacing[::-1], labels=LABELS)
    np.testing.assert_array_equal(turned.T, expected)


def test_a_border_is_nothing_to_a_component():
    """Framed by background the same components go and stay; only holes know where the image ends."""
    label = grid("11..2", ".....", "1...2")
    rules = PostProcessing((ClassRule("a", min_mm3=2.0), ClassRule("b", keep="largest")))
    inside = rules.apply(np.pad(label, 3), spacing=(1.0, 1.0), labels=LABELS)[3:-3, 3:-3]
    np.testing.assert_array_equal(rules.apply(label, spacing=(1.0, 1.0), labels=LABELS), inside)
    is_(inside, "11..2", ".....", ".....")


def test_an_empty_map_and_rules_that_do_nothing_change_nothing():
    empty = np.zeros((3, 4), dtype=np.int16)
    everything = PostProcessing((ClassRule("a", 5.0, "largest", "fill"),), foreground="largest")
    assert everything.apply(empty, spacing=(1.0, 1.0), labels=LABELS) is empty
    assert PostProcessing().apply(ISLANDS, spacing=(1.0, 1.0), labels=LABELS) is ISLANDS
    assert not PostProcessing((ClassRule("a"),)).changes
    for operation in (lambda: keep_largest(empty), lambda: keep_largest(empty, 1), lambda: fill_holes(empty, 1)):
        assert operation() is empty
    assert remove_small(empty, 1, voxels=3) is empty


def test_json_there_and_back():
    rules = PostProcessing((ClassRule("b", 2.5, "all", "fill"), ClassRule("a", keep="largest")), "largest", "faces")
    assert PostProcessing.from_json(json.loads(json.dumps(rules.to_json()))) == rules
    assert PostProcessing.from_json(PostProcessing().to_json()) == PostProcessing()


@pytest.mark.parametrize(
    "changes",
    [
        {"connectivity": "edges"}, {"foreground": "some"}, {"order": ["holes", "keep"]}, {"classes": []}, {"more": 1},
        {"classes": {"a": {"min_mm3": 1.0, "keep": "all"}}}, {"classes": {"a": "largest"}},
        {"classes": {"a": {"min_mm3": -1.0, "keep": "all", "holes": "leave"}}},
        {"classes": {"a": {"min_mm3": float("nan"), "keep": "all", "holes": "leave"}}},
        {"classes": {"a": {"min_mm3": 10**400, "keep": "all", "holes": "leave"}}},
        {"classes": {"a": {"min_mm3": True, "keep": "all", "holes": "leave"}}},
        {"classes": {"a": {"min_mm3": 1.0, "keep": ["all"], "holes": "leave"}}},
        {"classes": {"a\x1b[2J": {"min_mm3": 1.0, "keep": "all", "holes": "leave"}}},
    ],
)  # fmt: skip
def test_what_are_no_rules_is_refused(changes):
    with pytest.raises(ValueError, match=r"rule|min_mm3|connectivity|foreground|keep"):
        PostProcessing.from_json(PostProcessing().to_json() | changes)


def test_a_class_has_one_rule():
    with pytest.raises(ValueError, match="two rules"):
        PostProcessing((ClassRule("a"), ClassRule("a", keep="largest")))
    changed = PostProcessing((ClassRule("a", 3.0),)).with_rule(ClassRule("a", 4.0))
    assert changed.rules == (ClassRule("a", 4.0),)
    assert changed.rule("a").min_mm3 == 4.0
    assert not changed.rule("b").changes


def test_of_several_nuclei_none_is_removed_for_being_smaller():
    label = np.zeros((8, 8), dtype=np.int16)
    label[:3, :3] = label[5:7, 5:7] = label[0, 7] = 1
    by_size = PostProcessing((ClassRule("object", min_mm3=2.0),)).apply(label, spacing=(1.0, 1.0), labels=NUCLEI)
    assert np.count_nonzero(by_size) == 9 + 4
    for rules in (
        PostProcessing((ClassRule("object", keep="largest"),)),
        PostProcessing(foreground="largest"),
        PostProcessing((ClassRule("object", holes="fill"),)),
    ):
        with pytest.raises(UsageError, match="each component is an object"):
            rules.apply(label, spacing=(1.0, 1.0), labels=NUCLEI)


def test_a_class_that_there_is_not_is_named():
    with pytest.raises(UsageError, match="liver") as raised:
        PostProcessing((ClassRule("liver", keep="largest"),)).require_suits(LABELS)
    assert "a, b" in str(raised.value)


def test_in_words():
    rules = PostProcessing((ClassRule("a", 12.0, "largest"), ClassRule("b"), ClassRule("c", holes="fill")), "largest")
    assert rules.text().split("; ") == [
        "a: below 12 mm^3 removed, largest component kept",
        "c: holes filled",
        "all classes together: largest component kept",
    ]
    assert PostProcessing().text() == "nothing is changed"
    assert ClassRule("a", 3.5).text("pixels") == "below 3.5 pixels removed"
