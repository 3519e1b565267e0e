"""Deliveries: what becomes of a fault, in the process that meets it and in the one that is told."""

import logging
import pickle

import pytest
import torch
import torch.utils.data._utils.worker as torch_worker

from segkit.data import deliveries
from segkit.data.crumbs import Crumbs
from segkit.data.deliveries import Delivery, GuardedBatches, Ledger
from segkit.data.layouts import discover
from segkit.data.patches import Collate, PatchDataset
from segkit.data.sampling import Draw, SamplingRule
from segkit.data.store import Store
from segkit.data.substitutes import Skipping
from segkit.errors import DataError, ExitCode, StorageError

SIZE = (8, 8, 8)
DRAWS = [Draw(6, 0, (0, 0, 0)), Draw(7, 1, (1, 2, 3))]
SKIPPING = Skipping(seed=0, rule=SamplingRule(patch_size=SIZE, source_size=SIZE, batch_size=2), max_skipped=2)


@pytest.fixture
def stored(nnunet_raw, tmp_path, plan):
    return Store(tmp_path / "cache").prepare_all(discover(nnunet_raw(cases=3)).cases, plan())


@pytest.fixture
def batches(stored):
    def make(*, skipping=None, collate=None):
        patches = PatchDataset(stored, source_size=SIZE, crumbs=Crumbs(2))
        return GuardedBatches(patches, collate or Collate(frozenset(), 3, (1.0,) * 3), skipping=skipping)

    return make


@pytest.fixture
def as_worker(monkeypatch):
    info = torch_worker.WorkerInfo(id=1, num_workers=2, seed=0, dataset=None)
    monkeypatch.setattr(torch_worker, "_worker_info", info)


def test_a_whole_batch_has_no_faults(batches):
    delivery = batches().__getitems__(DRAWS)
    assert delivery.faults == ()
    assert delivery.batch.n == (6, 7)
    assert Ledger(None).accept(delivery) is delivery.batch


def test_a_fault_can_be_pickled_and_is_raised_with_its_four_parts(batches, stored, caplog):
    stored[1].path("label").write_bytes(b"")
    delivery = pickle.loads(pickle.dumps(batches().__getitems__(DRAWS)))
    assert delivery.batch is None
    with pytest.raises(DataError) as caught, caplog.at_level(logging.INFO, "segkit"):
        Ledger(None).accept(delivery)
    assert caught.value.where == f"case {stored[1].case_id}, {stored[1].path('label')}"
    assert "EOFError" in caught.value.why
    assert "Traceback" in caplog.text


def test_a_worker_is_named_and_its_batch_lies_in_shared_memory(batches, stored, as_worker):
    assert batches().__getitems__(DRAWS).batch.image.is_shared()
    stored[0].path("image").unlink()
    (fault,) = batches().__getitems__(DRAWS).faults
    assert fault.error.where.endswith(", loader worker 1")


def test_no_room_in_shared_memory_is_told_and_not_skipped(batches, as_worker, monkeypatch):
    def full(self):
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(StorageError, match="--shm-size") as caught:
        Ledger(2).accept(batches(skipping=SKIPPING).__getitems__(DRAWS))
    assert caught.value.exit_code == ExitCode.IO


def test_samples_that_do_not_fit_together_name_their_cases(batches, stored):
    class Misfit(Collate):
        def __call__(self, samples):
            raise ValueError("all input arrays must have the same shape")

    with pytest.raises(DataError, match="same shape") as caught:
        Ledger(2).accept(batches(collate=Misfit(frozenset(), 3, (1.0,) * 3)).__getitems__(DRAWS))
    assert f"{stored[0].case_id}, {stored[1].case_id}" in caught.value.where
    assert "(1, 8, 8, 8)" in caught.value.why


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_process_is_let_through(batches, monkeypatch, stop):
    def array(self, name):
        raise stop

    monkeypatch.setattr("segkit.data.stored_case.StoredCase.array", array)
    with pytest.raises(stop):
        batches().__getitems__(DRAWS)


@pytest.mark.parametrize("error", [MemoryError(), OSError(24, "Too many open files")])
def test_a_shortage_is_not_the_cases_fault(batches, monkeypatch, error):
    def load(*args, **kwargs):
        raise error

    monkeypatch.setattr("segkit.data.stored_case.np.load", load)
    with pytest.raises(DataError, match=r"data\.workers"):
        Ledger(2).accept(batches(skipping=SKIPPING).__getitems__(DRAWS))


def test_where_no_case_can_be_read_the_last_fault_is_raised(batches, stored):
    for case in stored:
        case.path("image").unlink()
    delivery = batches(skipping=SKIPPING).__getitems__(DRAWS)
    assert delivery.batch is None
    with pytest.raises(DataError, match="3 cases cannot be read"):
        Ledger(2).accept(delivery)
    with pytest.raises(DataError, match="a prepared case cannot be read"):
        Ledger(3).accept(delivery)


def test_a_case_that_is_left_out_is_named_once(batches, stored, caplog):
    stored[0].path("image").unlink()
    ledger = Ledger(1)
    with caplog.at_level(logging.WARNING, "segkit"):
        for _ in range(3):
            batch = ledger.accept(batches(skipping=SKIPPING).__getitems__(DRAWS))
    assert batch.n == (6, 7)
    assert stored[0].case_id not in batch.case_id
    assert len(caplog.records) == 1
    assert ledger.skipped == (stored[0].case_id,)


def test_the_place_of_a_worker_is_put_in_words(batches, stored, as_worker, monkeypatch):
    seen = []
    found = batches()
    share = deliveries._share
    monkeypatch.setattr(deliveries, "_share", lambda batch: (seen.append(found.place(1)), share(batch)))
    found.__getitems__(DRAWS)
    assert "batch of sample n=6" in seen[0]
    assert stored[0].case_id in seen[0]
    assert found.place(1) == "between two batches"
    found._patches.crumbs.drop("label", n=9, case=2)
    assert found.place(1) == f"case {stored[2].case_id}, {stored[2].path('label')}, sample n=9"


def test_a_delivery_without_a_batch_needs_no_pinning():
    assert Delivery(None).pin_memory() == Delivery(None)
