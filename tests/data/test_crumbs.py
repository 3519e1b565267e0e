"""Crumbs: read by one process after another wrote them and died; nothing is left in any folder."""

import os
import signal
import tempfile
from pathlib import Path

import pytest
import torch.utils.data._utils.worker as torch_worker

from segkit.data import crumbs as module
from segkit.data.crumbs import Crumb, Crumbs
from segkit.data.parallel import worker_context


def drop_and_die(crumbs, number):
    torch_worker._worker_info = torch_worker.WorkerInfo(id=number, num_workers=2, seed=0, dataset=None)
    crumbs.drop("label", n=2**40, case=7)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_crumb_outlives_its_worker():
    crumbs = Crumbs(2)
    child = worker_context().Process(target=drop_and_die, args=(crumbs, 1))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert crumbs.last(1) == Crumb("label", 2**40, 7)
    assert crumbs.last(0) == Crumb("waiting", 0, 0)


def test_a_process_that_is_no_worker_drops_none():
    crumbs = Crumbs(1)
    crumbs.drop("image", n=5, case=1)
    assert crumbs.last(0).activity == "waiting"


@pytest.mark.parametrize("memfd", [True, False])
def test_no_folder_holds_the_file_and_its_descriptor_is_closed(tmp_path, monkeypatch, memfd):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if not memfd:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    crumbs = Crumbs(3)
    descriptor = crumbs._descriptor
    assert os.fstat(descriptor).st_size == 3 * module._RECORD.size
    assert list(tmp_path.iterdir()) == []
    link = Path(f"/proc/self/fd/{descriptor}")
    if link.exists():
        assert str(link.readlink()).endswith("(deleted)")
    del crumbs
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
