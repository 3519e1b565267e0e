import pytest
import torch

from segkit.ops.padding import crop, pad_to_multiple, pad_to_size


@pytest.mark.parametrize("mode", ["constant", "replicate"])
@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (1, 2, 5, 8, 3), (1, 1, 1, 1, 1)])
def test_there_and_back(shape: tuple[int, ...], mode: str):
    image = torch.randn(shape)
    size = tuple(s + 3 for s in shape[2:])
    padded, slices = pad_to_size(image, size, mode=mode)
    assert padded.shape[2:] == size
    assert torch.equal(crop(padded, slices), image)
    multiple, slices = pad_to_multiple(image, (4,) * len(size), mode=mode)
    assert all(have % 4 == 0 and have - old < 4 for have, old in zip(multiple.shape[2:], shape[2:], strict=True))
    assert torch.equal(crop(multiple, slices), image)


def test_axes_are_not_swapped_and_the_image_is_in_the_middle():
    padded, slices = pad_to_size(torch.ones(1, 1, 2, 3, 4), (4, 3, 9), value=-5.0)
    assert padded.shape == (1, 1, 4, 3, 9)
    assert slices == (slice(1, 3), slice(0, 3), slice(2, 6))
    assert (padded == -5).sum() == 4 * 3 * 9 - 2 * 3 * 4


def test_what_is_large_enough_is_returned_as_it_is():
    image = torch.randn(1, 1, 8, 12)
    assert pad_to_size(image, (8, 10))[0] is image
    assert pad_to_multiple(image, (4, 4))[0] is image


def test_replicate_continues_the_edge():
    padded, _ = pad_to_size(torch.tensor([[[[1.0, 2.0]]]]), (1, 6), mode="replicate")
    assert padded.flatten().tolist() == [1, 1, 1, 2, 2, 2]


def test_labels_and_masks_keep_their_type():
    for field in (torch.ones(1, 1, 3, 3, dtype=torch.bool), torch.ones(1, 1, 3, 3, dtype=torch.int16)):
        padded, _ = pad_to_size(field, (5, 5))
        assert padded.dtype == field.dtype
        assert padded.sum() == 9
