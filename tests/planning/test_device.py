"""What is read from the processor's own description."""

import pytest

from segkit.planning import device as device_module
from segkit.planning.device import DeviceFacts, _processor, device_facts, device_kind, timed, usable_cores


@pytest.mark.parametrize(
    ("flags", "native"),
    [("fpu avx2 avx512f", False), ("fpu avx512_bf16 sse", True), ("amx_bf16 amx_tile", True), ("avx512_bf16x", False)],
)
def test_native_bf16_is_a_flag_of_its_own(tmp_path, flags, native):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: A Processor: 9\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    found, name = _processor(cpuinfo)
    assert bool(found & {"avx512_bf16", "amx_bf16"}) is native
    assert name == "A Processor: 9"


def test_without_a_description_no_flag_is_claimed(tmp_path):
    assert _processor(tmp_path / "nothing")[0] == frozenset()


def test_this_machine():
    facts = device_facts("cpu")
    assert facts.kind == "cpu"
    assert facts.cores == usable_cores() >= 1
    assert facts.memory_gib > 0.2
    assert facts.bf16_speedup is None
    assert (timed(facts).bf16_speedup is not None) == facts.native_bf16
    assert device_kind("cpu") == "cpu"


@pytest.mark.parametrize(("kind", "native", "known"), [("cuda", True, None), ("cpu", False, None), ("cpu", True, 1.5)])
def test_nothing_is_timed_where_the_answer_is_there(monkeypatch, kind, native, known):
    monkeypatch.setattr(device_module, "bf16_speedup", lambda: pytest.fail("timed"))
    facts = DeviceFacts(kind, "one", 2**30, 2, native_bf16=native, bf16_speedup=known)
    assert timed(facts) == facts
