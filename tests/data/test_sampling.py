"""The n-th draw: pure in (seed, n), distributed as nnU-Net's, and resumable at any n."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segkit.data.sampling import Draw, ResumableSampler, SamplingRule, case_of, draw


@dataclass(frozen=True)
class Phantom:
    """A case of known foreground: class to its voxels."""

    shape: tuple[int, ...]
    voxels: dict[int, list[tuple[int, ...]]] = field(default_factory=dict)

    @property
    def classes(self):
        return tuple(sorted(self.voxels))

    @property
    def locations(self):
        return {index: (0, len(voxels)) for index, voxels in self.voxels.items()}

    def location(self, index, row):
        return self.voxels[index][row]


CASES = [
    Phantom((30, 40, 20), {1: [(5, 6, 7), (25, 30, 10)], 2: [(15, 20, 10)]}),
    Phantom((50, 10, 33), {2: [(0, 0, 0), (49, 9, 32)]}),
    Phantom((20, 20, 20)),
]


def rule(batch_size=3, patch=(16, 16, 16), source=None, **kwargs):
    return SamplingRule(patch, source or patch, batch_size, **kwargs)


def sampler(position=0, *, batches=5, seed=1, **kwargs):
    return ResumableSampler(CASES, rule(**kwargs), seed=seed, batches_per_epoch=batches, position=lambda: position)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**63), n=st.integers(0, 2**40), order=st.sampled_from(["permutation", "replacement"]))
def test_a_draw_is_a_function_of_seed_and_n(seed, n, order):
    here = rule(order=order, batch_size=4)
    assert draw(seed, n, CASES, here) == draw(seed, n, CASES, here)
    assert draw(seed, n, CASES, here).n == n


def test_seeds_and_numbers_give_different_draws():
    here = rule()
    starts = {draw(seed, n, CASES, here)[1:] for seed in range(5) for n in range(200)}
    assert len(starts) > 300


def test_every_pass_holds_every_case_once_in_another_order():
    passes = [[case_of(7, 10 * p + i, 10, order="permutation") for i in range(10)] for p in range(20)]
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert len({tuple(one) for one in passes}) > 15


def test_replacement_is_uniform():
    counts = np.bincount([case_of(3, n, 4, order="replacement") for n in range(4000)], minlength=4)
    # 5 standard deviations of a binomial.
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(4000 * 0.25 * 0.75)


@pytest.mark.parametrize(
    ("batch_size", "share", "forced"), [(2, 0.33, 1), (4, 0.33, 1), (9, 0.33, 3), (12, 0.33, 4), (3, 0, 0), (3, 1, 3)]
)
def test_forced_samples_of_a_batch(batch_size, share, forced):
    assert rule(batch_size, foreground_oversampling=float(share)).num_forced == forced


def centred(one, patch=16):
    """The voxels of the case at which the draw could be centred, clamped to the image."""
    case = CASES[one.case]
    found = []
    for index, voxels in case.voxels.items():
        for voxel in voxels:
            starts = tuple(
                min(max(v - patch // 2, 0), size - patch) if patch < size else -((patch - size) // 2)
                for v, size in zip(voxel, case.shape, strict=True)
            )
            found += [(index, voxel)] if starts == one.start else []
    return found


def test_the_last_samples_of_each_batch_are_centred_on_foreground_and_no_others():
    here = rule(batch_size=3, order="replacement")
    draws = [draw(11, n, CASES, here) for n in range(600)]
    forced = [one for one in draws if one.n % 3 == 2 and CASES[one.case].classes]
    free = [one for one in draws if one.n % 3 != 2 and one.case == 0]
    assert len(forced) > 100
    assert all(centred(one) for one in forced)
    assert np.mean([bool(centred(one)) for one in free]) < 0.05


def test_forced_class_is_uniform_over_the_classes_present():
    here = rule(batch_size=1, foreground_oversampling=1.0, order="replacement")
    classes = [centred(one)[0][0] for n in range(900) if (one := draw(2, n, CASES, here)).case == 0]
    # Class 1 has two voxels, class 2 one: still half and half.
    assert np.mean(np.array(classes) == 2) == pytest.approx(0.5, abs=0.13)


def test_a_batch_of_one_is_forced_by_chance():
    here = rule(batch_size=1, patch=(4, 4, 4), order="replacement")
    assert here.num_forced == 0
    hits = [bool(centred(one, 4)) for n in range(1500) if (one := draw(5, n, CASES, here)).case == 0]
    assert np.mean(hits) == pytest.approx(0.33, abs=0.1)


def test_a_case_without_foreground_gives_a_random_patch():
    here = rule(batch_size=1, patch=(8, 8, 8), foreground_oversampling=1.0)
    starts = {draw(1, n, CASES[2:], here).start for n in range(100)}
    assert len(starts) > 80


def test_patch_stays_inside_where_it_fits_and_is_centred_where_it_does_not():
    here = rule(batch_size=4, order="replacement")
    for n in range(400):
        one = draw(9, n, CASES, here)
        for start, size in zip(one.start, CASES[one.case].shape, strict=True):
            if size >= 16:
                assert 0 <= start <= size - 16
            else:
                assert start == -((16 - size) // 2)


def test_every_position_is_reached_equally_often():
    here = SamplingRule((4,), (4,), 1, foreground_oversampling=0.0)
    starts = np.bincount([draw(1, n, [Phantom((10,))], here).start[0] for n in range(7000)], minlength=7)
    assert len(starts) == 7
    assert np.abs(starts - 1000).max() < 5 * np.sqrt(7000 / 7 * 6 / 7)


def test_source_patch_has_the_same_centre_crop():
    small, large = rule(order="replacement"), rule(source=(21, 24, 17), order="replacement")
    for n in range(50):
        a, b = (draw(4, n, CASES, here) for here in (small, large))
        assert b.start == tuple(s - (big - 16) // 2 for s, big in zip(a.start, (21, 24, 17), strict=True))


def test_sampler_resumed_at_any_batch_yields_exactly_the_rest():
    whole = list(sampler())
    assert len(whole) == len(sampler()) == 5
    assert [one.n for batch in whole for one in batch] == list(range(15))
    for done in range(5):
        rest = sampler(3 * done)
        assert list(rest) == whole[done:]
        assert len(rest) == 5
    assert [one.n for one in next(iter(sampler(15)))] == [15, 16, 17]
    assert len(list(sampler(15))) == 5


def test_sampler_asks_for_its_position_at_every_iteration():
    position = [0]
    one = ResumableSampler(CASES, rule(), seed=1, batches_per_epoch=2, position=lambda: position[0])
    first = list(one)
    position[0] = 6
    second = list(one)
    assert [d.n for batch in second for d in batch] == [6, 7, 8, 9, 10, 11]
    assert first != second


def test_dimensions_are_free():
    flat = [Phantom((40, 50), {1: [(3, 4)]})]
    one = draw(0, 1, flat, SamplingRule((8, 8), (10, 10), 2))
    assert isinstance(one, Draw)
    assert len(one.start) == 2


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_each_batch_whatever_their_number(world_size):
    """Together the ranks draw, batch by batch, exactly what one process draws."""
    cases = [Phantom(shape=(20, 22, 18)) for _ in range(5)]

    def batches(rank: int, size: int) -> list[list[Draw]]:
        shared = rule(batch_size=4)
        return list(
            ResumableSampler(cases, shared, seed=3, batches_per_epoch=6, position=lambda: 8, rank=rank, world_size=size)
        )

    alone = batches(0, 1)
    by_rank = [batches(rank, world_size) for rank in range(world_size)]
    together = [[one for part in parts for one in part] for parts in zip(*by_rank, strict=True)]
    assert together == alone
    assert [d.n for batch in alone for d in batch] == list(range(8, 24))
