"""What each adaptation keeps, as the equation that its documentation gives."""

import pytest
import torch
from torch.nn import functional as F

from segkit.weights.adaptation import channel_mixing, class_sources, fit_kernel, mix_channels, take_classes, turn_axes


def convolved(image, weight):
    return F.conv2d(image, weight, padding=tuple(k // 2 for k in weight.shape[2:]))


def test_channels_in_another_order_give_the_same_response_to_the_same_image():
    weight, image = torch.randn(5, 3, 3, 3), torch.randn(1, 3, 7, 6)
    mixing, told = channel_mixing(("T1", "T2", "FLAIR"), ("flair", "T1", "t2"), count=3)
    other = image[:, [2, 0, 1]]
    assert torch.allclose(convolved(other, mix_channels(weight, mixing)), convolved(image, weight), atol=1e-5)
    assert told == "flair by name, T1 by name, t2 by name"


def test_a_new_channel_changes_nothing_at_first():
    weight, image = torch.randn(5, 1, 3, 3), torch.randn(1, 2, 7, 6)
    mixing, told = channel_mixing(("T1",), ("FLAIR", "T1"), count=1)
    assert torch.equal(convolved(image, mix_channels(weight, mixing)), convolved(image[:, 1:], weight))
    assert told == "FLAIR new, from zero, T1 by name"


def test_a_channel_that_is_not_there_any_more_is_dropped():
    mixing, told = channel_mixing(("T1", "T2"), ("T2",), count=2)
    assert mixing.tolist() == [[0, 1]]
    assert told == "T2 by name, T1 dropped"


@pytest.mark.parametrize(("have", "count"), [(None, 1), (None, 2), (("a",), 1), (("a", "b"), 2)])
def test_channels_without_a_known_name_answer_alike_to_an_image_alike_in_all(have, count):
    weight, one = torch.randn(5, count, 3, 3), torch.randn(1, 1, 7, 6)
    mixing, told = channel_mixing(have, ("x", "y", "z"), count=count)
    adapted = convolved(one.expand(-1, 3, -1, -1), mix_channels(weight, mixing))
    assert torch.allclose(adapted, convolved(one.expand(-1, count, -1, -1), weight), atol=1e-5)
    assert told == f"{count} channels to 3: each begins with 1/3 of their sum"


@pytest.mark.parametrize("have", [None, ("a", "b"), ("x", "y"), ("only one",)])
def test_equally_many_channels_stay_where_they_are_unless_names_say_otherwise(have):
    mixing, told = channel_mixing(have, ("x", "y"), count=2)
    assert torch.equal(mixing, torch.eye(2))
    assert told == ""


def test_classes_by_name():
    sources, told = class_sources(("background", "edema", "tumour"), ("background", "Tumour", "necrosis"), count=3)
    assert sources == (0, 2, None)
    assert told == "background by name, Tumour by name, necrosis new, edema dropped"
    drawn, have = torch.zeros(3, 4, 1, 1), torch.arange(12.0).reshape(3, 4, 1, 1)
    assert take_classes(drawn, have, sources).flatten().tolist() == [0, 1, 2, 3, 8, 9, 10, 11, 0, 0, 0, 0]
    assert take_classes(torch.full((3,), 7.0), torch.tensor([1.0, 2.0, 3.0]), sources).tolist() == [1, 3, 7]
    assert float(drawn.abs().sum()) == 0


@pytest.mark.parametrize(
    ("have", "count", "expected"),
    [
        (None, 2, (0, 1)),  # nothing is known, equally many
        (None, 3, (None, None)),
        (("background", "a"), 2, (0, 1)),
        (("background", "liver"), 2, (None, None)),  # background alone would win everywhere
        ((), 2, (None, None)),  # overlapping regions
        (("background", "a", "b"), 4, (None, None)),  # names that are not those of the logits
    ],
)
def test_where_each_class_begins(have, count, expected):
    sources, told = class_sources(have, ("background", "a"), count=count)
    assert sources == expected
    assert bool(told) == (expected == (None, None))


def test_a_larger_kernel_gives_the_same_response():
    weight, image = torch.randn(4, 2, 1, 3), torch.randn(1, 2, 8, 9)
    larger = fit_kernel(weight, (3, 5))
    assert larger.shape == (4, 2, 3, 5)
    assert torch.allclose(convolved(image, larger), convolved(image, weight), atol=1e-5)


def test_a_smaller_kernel_gives_the_same_response_where_nothing_changes_along_the_axis():
    """Rows that are all the same, away from the border: taps along them may as well be one, or three."""
    weight, row = torch.randn(4, 2, 5, 3), torch.randn(1, 2, 1, 9)
    image = row.expand(-1, -1, 12, -1)
    for size in (1, 3):
        smaller = fit_kernel(weight, (size, 3))
        assert smaller.shape == (4, 2, size, 3)
        inside = (..., slice(3, -3), slice(None))
        assert torch.allclose(convolved(image, smaller)[inside], convolved(image, weight)[inside], atol=1e-5)


def test_a_smaller_kernel_by_hand():
    taps = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]).reshape(1, 1, 5, 1)
    assert fit_kernel(taps, (3, 1)).flatten().tolist() == [3, 4, 24]
    assert fit_kernel(taps, (1, 1)).flatten().tolist() == [31]
    assert taps.flatten().tolist() == [1, 2, 4, 8, 16]


def test_turned_kernels_on_a_turned_image_give_the_turned_response():
    weight, image = torch.randn(4, 2, 1, 3, 5), torch.randn(1, 2, 6, 7, 8)
    axes = (2, 0, 1)
    kernel = turn_axes(weight, axes)
    assert tuple(kernel.shape[2:]) == (5, 1, 3)
    padded = tuple(k // 2 for k in kernel.shape[2:])
    found = F.conv3d(turn_axes(image, axes), kernel, padding=padded)
    assert torch.allclose(found, turn_axes(F.conv3d(image, weight, padding=(0, 1, 2)), axes), atol=1e-5)
    assert turn_axes(torch.randn(4), axes).shape == (4,)
    assert turn_axes(weight, None) is weight
