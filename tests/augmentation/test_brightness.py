import torch

from segkit.augmentation.brightness import Brightness, scale_brightness


def test_multiplies_each_channel_by_its_own_factor():
    images, factor = torch.randn(2, 3, 4, 5, 6), torch.rand(2, 3) + 0.5
    torch.testing.assert_close(scale_brightness(images, None, factor), images * factor[..., None, None, None])


def test_apply_gives_each_image_what_was_drawn_for_it():
    images = torch.randn(3, 1, 6, 7)
    result = Brightness().apply(images, None, [0.5, 1.0, 2.0])
    torch.testing.assert_close(result, images * torch.tensor([0.5, 1.0, 2.0])[:, None, None, None])
