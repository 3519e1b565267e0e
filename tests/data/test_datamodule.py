"""Batches: the same for any number of workers, exact after a resume, augmented where the model is."""

from dataclasses import replace

import lightning.pytorch as pl
import pytest
import torch
import yaml
from torch import Tensor, nn

from segkit.augmentation.recipe import Recipe
from segkit.configuration.build import build_recipe
from segkit.data.datamodule import SegmentationDataModule
from segkit.data.layouts import discover
from segkit.data.store import Store
from segkit.types import Batch, PreparedCase, Target


@pytest.fixture(scope="module")
def recipe():
    """nnU-Net's recipe, as it ships."""
    return build_recipe({"augmentation": yaml.safe_load(_configs("augmentation/nnunet.yaml"))})


def _configs(name):
    from segkit.configuration import config_dir

    return (config_dir() / name).read_text()


@pytest.fixture
def stored(nnunet_raw, tmp_path, plan):
    cases = discover(nnunet_raw(cases=5)).cases
    return Store(tmp_path / "cache").prepare_all(cases, plan())


def module(stored, plan, *, recipe=None, **kwargs):
    kwargs = {"seed": 3, **kwargs}
    return SegmentationDataModule(stored[:4], stored[4:], plan=plan, recipe=recipe, **kwargs)


def drawn(datamodule, *, epochs=1):
    """Batches as a training loop would consume them."""
    loader = datamodule.train_dataloader()
    batches = []
    for _ in range(epochs):
        for batch in loader:
            batches.append(datamodule.on_after_batch_transfer(batch, 0))
            datamodule.consumed(batch)
    return batches


def tensors(batch):
    target = batch.target
    return [t for t in (batch.image, target.label, batch.valid) if t is not None]


def assert_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert (a.n, a.case_id) == (b.n, b.case_id)
        assert len(tensors(a)) == len(tensors(b))
        for one, other in zip(tensors(a), tensors(b), strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("workers", "persistent"), [(1, True), (1, False), (4, True), (4, False)])
def test_batches_are_bitwise_equal_for_any_workers(stored, plan, recipe, workers, persistent):
    alone = drawn(module(stored, plan(), recipe=recipe), epochs=2)
    assert len(alone) == 8
    several = module(stored, plan(), recipe=recipe, workers=workers, persistent_workers=persistent)
    assert_same(alone, drawn(several, epochs=2))


def test_n_runs_on_through_epochs_and_each_is_different(stored, plan):
    batches = drawn(module(stored, plan()), epochs=2)
    assert [n for batch in batches for n in batch.n] == list(range(24))
    assert not torch.equal(batches[0].image, batches[4].image)


@pytest.mark.parametrize("done", range(9))
def test_resumed_anywhere_it_yields_exactly_what_remained(stored, plan, recipe, done):
    whole = drawn(module(stored, plan(), recipe=recipe), epochs=2)
    resumed = module(stored, plan(), recipe=recipe)
    resumed.load_state_dict({"n": 3 * done})
    assert_same(whole[done:8], drawn(resumed, epochs=2)[: 8 - done])
    first_epoch = resumed.samples_per_epoch - 3 * done % resumed.samples_per_epoch
    again = module(stored, plan())
    again.load_state_dict({"n": 3 * done})
    assert sum(len(batch.n) for batch in again.train_dataloader()) == first_epoch


def test_prefetched_batches_do_not_count(stored, plan):
    datamodule = module(stored, plan(), workers=1)
    iterator = iter(datamodule.train_dataloader())
    first = next(iterator)
    assert datamodule.state_dict() == {"n": 0}
    datamodule.consumed(first)
    assert datamodule.state_dict() == {"n": 3}


def test_the_source_patch_holds_the_patch_in_its_middle(stored, plan):
    """Nothing drawn: an enlarged patch augmented by nothing equals the patch cut at its own size."""

    class Enlarging(Recipe):
        def source_size(self, patch_size):
            return tuple(size + 5 + axis for axis, size in enumerate(patch_size))

    plain, enlarged = (drawn(module(stored, plan(), recipe=r)) for r in (None, Enlarging()))
    for a, b in zip(plain, enlarged, strict=True):
        inside = torch.ones_like(a.target.label, dtype=torch.bool) if a.valid is None else a.valid
        assert torch.equal(a.target.label, b.target.label)
        assert torch.equal(a.image, b.image)
        assert b.valid is None or torch.equal(inside, b.valid)


def test_batch_has_the_patch_size_and_int64_labels(stored, plan, recipe):
    (batch, *_) = drawn(module(stored, plan(patch_size=(12, 16, 10)), recipe=recipe))
    assert batch.image.shape == (3, 1, 12, 16, 10)
    assert batch.target.label.dtype == torch.int64
    assert set(batch.target.label.unique().tolist()) <= {0, 1, 2}


def test_a_patch_larger_than_the_image_is_padded_centred(stored, plan):
    (batch, *_) = drawn(module(stored, plan(patch_size=(24, 24, 24), batch_size=1)))
    assert batch.valid is not None
    assert stored[0].shape == (20, 24, 18)
    assert batch.valid[0, 0, 2:22, :, 3:21].all()
    assert batch.valid.sum() == 20 * 24 * 18
    assert not batch.image[~batch.valid].any()


def test_accumulated_batches_lengthen_the_epoch(stored, plan):
    datamodule = module(stored, plan(), accumulate=3)
    assert len(datamodule.train_dataloader()) == 12
    assert datamodule.samples_per_epoch == 36


def test_validation_yields_whole_cases_that_stay_where_they_are(stored, plan):
    datamodule = module(stored, plan())
    (case,) = datamodule.val_dataloader()
    assert isinstance(case, PreparedCase)
    assert case.case_id == stored[4].case_id
    assert case.image.shape == (1, 20, 24, 18)
    assert datamodule.transfer_batch_to_device(case, torch.device("meta"), 0) is case
    assert datamodule.on_after_batch_transfer(case, 0) is case


def test_a_training_batch_moves(stored, plan):
    datamodule = module(stored, plan())
    batch = next(iter(datamodule.train_dataloader()))
    assert datamodule.transfer_batch_to_device(batch, torch.device("meta"), 0).image.device.type == "meta"


def test_needs_reach_the_batch(nnunet_raw, tmp_path, plan, recipe):
    needs = frozenset({"cells", "instances", "spacing"})
    cases = discover(nnunet_raw(cases=3, name="more")).cases
    entries = Store(tmp_path / "rich").prepare_all(cases, plan(), needs=needs)
    datamodule = SegmentationDataModule(entries, [], plan=plan(), recipe=recipe, seed=0, needs=needs)
    batch = drawn(datamodule)[0]
    assert batch.target.spacing == (1.0, 1.0, 1.0)
    assert batch.target.instances is not None
    assert batch.target.cells is not None
    assert batch.target.cells.shape == batch.target.label.shape


class Recorder(pl.LightningModule):
    """One convolution that trains on the batches and keeps what it saw."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.net = nn.Conv3d(1, 3, 1)
        self.seen: list[tuple[int, ...]] = []
        self._stop_after = stop_after

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.seen.append(batch.n)
        target: Target = batch.target
        return nn.functional.cross_entropy(self.net(batch.image), target.label[:, 0])

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.trainer.datamodule.consumed(batch)
        if self._stop_after is not None and self.trainer.global_step == self._stop_after:
            self.trainer.save_checkpoint(self.trainer.default_root_dir + "/stopped.ckpt")
            raise KeyboardInterrupt

    def validation_step(self, case: PreparedCase, batch_idx: int) -> None:
        assert isinstance(case, PreparedCase)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2)


def fit(datamodule, folder, *, stop_after=None, resume=None):
    torch.manual_seed(0)
    recorder = Recorder(stop_after)
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    try:
        trainer.fit(recorder, datamodule=datamodule, ckpt_path=resume, weights_only=True)
    except (KeyboardInterrupt, SystemExit):
        assert stop_after is not None
    return recorder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("stop_after", "workers"), [(1, 0), (4, 0), (7, 0), (8, 0), (11, 0), (4, 2), (7, 2)])
def test_a_stopped_training_goes_on_bitwise(stored, plan, recipe, tmp_path, stop_after, workers):
    """Through Lightning, stopped after any step, the last of an epoch included."""

    def datamodule():
        return module(stored, plan(), recipe=recipe, workers=workers)

    whole = fit(datamodule(), tmp_path)
    first = fit(datamodule(), tmp_path, stop_after=stop_after)
    rest = fit(datamodule(), tmp_path, resume=str(tmp_path / "stopped.ckpt"))
    assert first.seen + rest.seen == whole.seen
    assert [n for batch in whole.seen for n in batch] == list(range(36))
    for one, other in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.equal(one, other)


def test_augmentation_keeps_the_plans_flips(stored, plan):
    class Spy:
        calls: list[tuple[int, ...]] = []  # noqa: RUF012

        def source_size(self, patch_size):
            return patch_size

        def __call__(self, batch, *, patch_size, seed, flip_axes):
            self.calls.append((patch_size, seed, flip_axes))
            return replace(batch)

    drawn(module(stored, plan(flip_axes=(1,)), recipe=Spy(), seed=42))
    assert set(Spy.calls) == {((16, 16, 16), 42, (1,))}
