"""The rules against nnU-Net's documented plans and hand-made cases."""

import math

import pytest

from segkit.planning.rules import (
    Budget,
    Topology,
    convolution_elements,
    plan_patch,
    resampled_shape,
    separate_axis,
    target_spacing,
    topology,
)

PLAIN_3D, PLAIN_2D = Budget(32, 320, 560e6, 2), Budget(32, 512, 85e6, 12)
RESIDUAL = {
    size: Budget(32, 320, reference, 2, encoder="residual", dataset_share=1.0)
    for size, reference in (("M", 680e6), ("L", 2100e6), ("XL", 3600e6))
}

# Name: spacing, median shape, classes with background, cases; then patch, batch and stages in 3D, patch and batch
# in 2D. The hippocampus rows are documented by nnU-Net; the others follow from an independent restatement of its rule.
GOLDEN = {
    "hippocampus": ((1.0, 1.0, 1.0), (36, 50, 35), 3, 260, ((40, 56, 40), 9, 4), ((56, 40), 366)),
    "brats": ((1.0, 1.0, 1.0), (138, 169, 138), 4, 484, ((128, 128, 128), 2, 6), ((192, 160), 105)),
    "spleen": ((1.6, 0.793, 0.793), (187, 512, 512), 2, 41, ((64, 192, 160), 2, 6), ((512, 512), 12)),
    "prostate": ((3.6, 0.625, 0.625), (20, 320, 319), 3, 32, ((20, 320, 256), 2, 7), ((320, 320), 32)),
    "liver": ((1.0, 0.768, 0.768), (482, 512, 512), 3, 131, ((128, 128, 128), 2, 6), ((512, 512), 12)),
    "acdc": ((5.0, 1.5625, 1.5625), (18, 237, 208), 4, 200, ((20, 256, 224), 4, 6), ((256, 224), 56)),
    "heart": ((1.37, 1.25, 1.25), (115, 320, 232), 2, 20, ((80, 192, 160), 2, 6), ((320, 256), 40)),
}
GOLDEN_RESIDUAL = {
    "hippocampus": (((40, 56, 40), 58), ((40, 56, 40), 178), ((40, 56, 40), 183)),
    "brats": (((128, 128, 128), 2), ((160, 192, 160), 3), ((160, 192, 160), 5)),
    "spleen": (((64, 160, 160), 2), ((80, 256, 256), 2), ((112, 320, 256), 2)),
    "prostate": (((20, 256, 256), 2), ((20, 320, 320), 5), ((20, 320, 320), 8)),
    "liver": (((128, 128, 128), 2), ((192, 192, 192), 2), ((224, 256, 224), 2)),
    "acdc": (((20, 256, 224), 3), ((20, 256, 224), 10), ((20, 256, 224), 17)),
    "heart": (((80, 192, 160), 2), ((112, 288, 224), 2), ((128, 320, 256), 3)),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_plan_equals_nnunets(name):
    spacing, shape, classes, cases, volumes, pictures = GOLDEN[name]
    plan = plan_patch(spacing, shape, num_classes=classes, num_cases=cases, budget=PLAIN_3D)
    assert (plan.patch_size, plan.batch_size, plan.topology.num_stages) == volumes
    # nnU-Net's 2D plan takes slices across its first axis as samples.
    plan = plan_patch(spacing[1:], shape[1:], num_classes=classes, num_cases=cases * shape[0], budget=PLAIN_2D)
    assert (plan.patch_size, plan.batch_size) == pictures


@pytest.mark.parametrize("name", GOLDEN_RESIDUAL)
def test_residual_plans_equal_nnunets(name):
    spacing, shape, classes, cases, _, _ = GOLDEN[name]
    for budget, expected in zip(RESIDUAL.values(), GOLDEN_RESIDUAL[name], strict=True):
        plan = plan_patch(spacing, shape, num_classes=classes, num_cases=cases, budget=budget)
        assert (plan.patch_size, plan.batch_size) == expected


def test_axes_may_come_in_any_order():
    spacing, shape = (1.6, 0.793, 0.8), (187, 512, 500)
    plan = plan_patch(spacing, shape, num_classes=2, num_cases=41, budget=PLAIN_3D)
    turned = plan_patch(spacing[::-1], shape[::-1], num_classes=2, num_cases=41, budget=PLAIN_3D)
    assert turned.patch_size == plan.patch_size[::-1]
    assert turned.topology.strides == tuple(s[::-1] for s in plan.topology.strides)


def test_anisotropic_axis_is_halved_later_and_first_kernel_is_flat():
    found = topology((64, 192, 160), (1.6, 0.793, 0.793))
    assert found.strides == ((1, 1, 1), (1, 2, 2), *[(2, 2, 2)] * 4)
    assert found.kernel_sizes == ((1, 3, 3), *[(3, 3, 3)] * 5)
    assert found.divisor == (16, 32, 32)


@pytest.mark.parametrize(("size", "stages"), [((7,) * 3, 1), ((8,) * 3, 2), ((14, 14), 2), ((15, 15), 3)])
def test_no_axis_falls_below_four_voxels(size, stages):
    assert topology(size, (1.0,) * len(size)).num_stages == stages


def test_a_single_axis_is_halved_only_from_twelve_voxels():
    # The first axis is 6 mm and too small anyway: only the second can be halved.
    assert topology((4, 11), (1.0, 1.0)).num_stages == 1
    assert topology((4, 12), (1.0, 1.0)).num_stages == 2


def test_max_stages_and_divisor():
    found = topology((64, 64, 64), (1.0, 1.0, 1.0), max_stages=3)
    assert found == Topology(((1, 1, 1), (2, 2, 2), (2, 2, 2)), ((3, 3, 3),) * 3, (4, 4, 4))


def test_patch_is_a_multiple_of_the_divisor_and_within_budget():
    budget = Budget(16, 128, 3e7, 1, max_stages=4)
    for shape in ((33, 51, 35), (300, 200, 90), (64, 64, 9)):
        plan = plan_patch((1.0, 1.0, 2.0), shape, num_classes=2, num_cases=50, budget=budget)
        assert all(n % d == 0 for n, d in zip(plan.patch_size, plan.topology.divisor, strict=True))
        assert plan.estimate <= 3e7
        assert plan.batch_size >= 2


def test_voxel_cap_and_batch_cap():
    budget = Budget(8, 32, 1e9, 1, max_stages=3, dataset_share=1.0, max_batch=3, max_voxels=32**3)
    plan = plan_patch((1.0, 1.0, 1.0), (90, 90, 90), num_classes=2, num_cases=50, budget=budget)
    assert math.prod(plan.patch_size) <= 32**3
    assert plan.batch_size == 3


def test_elements_by_hand():
    # 2 stages, 1 input: encoder 2 x (4 x 64) + 2 x (8 x 16), decoder (2 + 1) x (4 x 64), head 3 x 64.
    strides = ((1, 1), (2, 2))
    assert convolution_elements((8, 8), strides, (4, 8), num_classes=3) == 512 + 256 + 768 + 192
    # Stem 256; a block of 2 convolutions, 512; then 3 blocks and a projection, 7 x 128; decoder 2 x 256; head 192.
    residual = convolution_elements((8, 8), strides, (4, 8), num_classes=3, encoder="residual")
    assert residual == 256 + 512 + 896 + 512 + 192


def test_target_spacing_is_the_median():
    assert target_spacing([(1.0, 2.0, 3.0), (1.5, 2.0, 2.0), (2.0, 2.0, 2.5)], [(50, 50, 50)] * 3) == (1.5, 2.0, 2.5)


def test_coarse_axis_takes_the_tenth_percentile_but_not_finer_than_the_others():
    shapes = [(20, 300, 300)] * 11
    spacings = [(3.0 + 0.2 * i, 0.6, 0.6) for i in range(11)]
    assert target_spacing(spacings, shapes)[0] == pytest.approx(3.2)
    fine = [(0.5, 0.6, 0.6)] * 5 + [(4.0, 0.6, 0.6)] * 6
    assert target_spacing(fine, shapes)[0] == pytest.approx(0.6, abs=1e-4)
    many_slices = [(200, 300, 300)] * 11
    assert target_spacing(spacings, many_slices)[0] == pytest.approx(4.0)


def test_resampled_shape_keeps_the_extent():
    assert resampled_shape((10, 21, 7), (2.0, 1.0, 0.1), (1.0, 1.0, 3.0)) == (20, 21, 1)


@pytest.mark.parametrize(
    ("spacing", "target", "axis"),
    [
        ((1, 1, 1), (1, 1, 1), None),
        ((1, 1, 3), (1, 1, 1), None),
        ((1, 1, 3.1), (1, 1, 1), 2),
        ((1, 1, 1), (5, 1, 1), 0),
        ((0.2, 1.25, 1.25), (1, 1, 1), None),
        ((1, 9), (1, 1), None),
    ],
)
def test_separate_axis(spacing, target, axis):
    assert separate_axis(tuple(map(float, spacing)), tuple(map(float, target))) == axis
