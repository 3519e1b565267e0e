import pytest
import torch
import torch.nn.functional as F

from segkit.ops.one_hot import one_hot


@pytest.mark.parametrize("shape", [(2, 1, 5, 6), (2, 1, 4, 5, 6)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_equals_torch_where_all_is_known(shape: tuple[int, ...], dtype: torch.dtype):
    label = torch.randint(0, 3, shape).to(dtype)
    expected = F.one_hot(label[:, 0].long(), 3).movedim(-1, 1).float()
    assert torch.equal(one_hot(label, 3), expected)
    assert torch.equal(one_hot(label, 3, dtype=torch.float64), expected.double())


def test_ignored_voxels_are_zero_everywhere():
    label = torch.tensor([-1, 0, 2, -1]).reshape(1, 1, 2, 2)
    encoded = one_hot(label, 3)
    assert torch.equal(encoded.sum(1), (label[:, 0] >= 0).float())
    assert torch.equal(encoded.argmax(1)[label[:, 0] >= 0], torch.tensor([0, 2]))
