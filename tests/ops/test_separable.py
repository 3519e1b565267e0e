import torch

from segkit.ops.separable import apply_along_axes


def test_each_matrix_acts_on_its_own_axis_and_image():
    images = torch.randn(3, 4, 5, 6)
    matrices = [torch.randn(3, 7, 4), torch.randn(3, 5, 5), torch.randn(3, 2, 6)]
    expected = torch.einsum("nabc,nia,njb,nkc->nijk", images, *matrices)
    torch.testing.assert_close(apply_along_axes(images, matrices), expected, rtol=1e-4, atol=1e-4)


def test_none_leaves_an_axis_alone():
    images = torch.randn(2, 4, 5)
    assert torch.equal(apply_along_axes(images, [None, None]), images)
    matrix = torch.randn(2, 3, 5)
    torch.testing.assert_close(apply_along_axes(images, [None, matrix]), torch.einsum("nab,nkb->nak", images, matrix))
    volume = torch.randn(2, 3, 4, 5)
    matrix = torch.randn(2, 4, 4)
    expected = torch.einsum("nabc,nkb->nakc", volume, matrix)
    torch.testing.assert_close(apply_along_axes(volume, [None, matrix, None]), expected)
