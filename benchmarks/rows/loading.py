"""Batches of patches from prepared cases."""

from collections.abc import Callable, Mapping

from benchmarks.bench import Bench
from benchmarks.harness import Contender, Pair, Row, timed
from benchmarks.topology import HIPPOCAMPUS_FULL as TOPOLOGY


def contenders(bench: Bench) -> Mapping[str, Contender]:
    """Each cuts what its own augmentation asks for."""
    times = bench.pick(20, 3)

    def contender(make: Callable[[Bench], Callable[[], object]]) -> Contender:
        return Contender(lambda: timed(make(bench), unit="ms", times=times), "float32")

    return {"segkit": contender(_ours), "nnU-Net": contender(_nnunet), "MONAI": contender(_monai)}


def _ours(bench: Bench) -> Callable[[], object]:
    from benchmarks.ours import overrides, planned
    from segkit.configuration import build_recipe
    from segkit.data.datamodule import SegmentationDataModule
    from segkit.data.pipeline import open_dataset, prepare_dataset

    config, plan = planned([*overrides(bench, TOPOLOGY), "trainer.steps_per_epoch=1000000"])
    prepared = prepare_dataset(open_dataset(config), plan)
    module = SegmentationDataModule(prepared.train, (), plan=plan, recipe=build_recipe(config), seed=0, workers=0)
    stream = iter(module.train_dataloader())
    return lambda: next(stream)


def _nnunet(bench: Bench) -> Callable[[], object]:
    from benchmarks.peers.nnunet import batches

    return batches(bench, TOPOLOGY)


def _monai(bench: Bench) -> Callable[[], object]:
    import torch

    from benchmarks.ours import overrides, planned
    from benchmarks.peers.monai import batches
    from segkit.configuration import build_recipe
    from segkit.data.pipeline import open_dataset, prepare_dataset

    config, plan = planned(overrides(bench, TOPOLOGY))
    loaded = [entry.load() for entry in prepare_dataset(open_dataset(config), plan).train]
    cases = [
        {"image": torch.tensor(case.image), "label": torch.tensor(case.label)[None].long().clamp(min=0)}
        for case in loaded
    ]
    return batches(cases, build_recipe(config).source_size(plan.patch_size), TOPOLOGY.batch)


def _before(bench: Bench) -> None:
    from benchmarks.prepared import prepare_both

    prepare_both(bench)


ROW = Row(
    name="loading",
    title="Loading, a batch",
    what="A batch of 9 hippocampus patches before augmentation, in one process and one thread: ours and nnU-Net's from "
    "their prepared files, MONAI's from memory (CacheDataset), each as large as its augmentation needs.",
    unit="ms",
    contenders=contenders,
    pairs=(Pair("nnU-Net", "segkit"), Pair("MONAI", "segkit")),
    rounds=5,
    threads=1,
    before=_before,
)
