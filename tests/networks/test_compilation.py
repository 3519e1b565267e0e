"""Compilation: the same numbers, nothing left behind, and a network as it was where it fails."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from segkit.errors import Preempted
from segkit.networks.compilation import COMPILE_SECONDS, GAIN, compile_network, compile_pays


class Levels(nn.Module):
    """Logits of two levels; of torch alone, since the tests' shape checks do not compile."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1, stride=2)

    def forward(self, image):
        fine = self.first(image)
        return [fine, self.second(fine)]


def network():
    torch.manual_seed(0)
    return Levels()


@pytest.fixture
def backend(monkeypatch):
    """Compile by a function instead of the C++ compiler, whose minute is the slow test's."""
    plain = torch.compile

    def use(function):
        torch._dynamo.reset()
        monkeypatch.setattr(torch, "compile", lambda net, **options: plain(net, backend=function, **options))

    yield use
    torch._dynamo.reset()


def as_traced(graph, inputs):
    return graph.forward


class Counting(nn.Module):
    """Changes a buffer and draws random numbers in each pass."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 1)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, image):
        self.passes.add_(1)
        return self.drop(self.layer(image))


def test_the_trial_leaves_nothing_behind(backend):
    backend(as_traced)
    net = Counting().eval()
    net.layer.weight.grad = torch.full_like(net.layer.weight, 7)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    image = torch.randn(2, 1, 4, 4)
    random = torch.get_rng_state()
    done = compile_network(net, image, precision="32-true")
    assert done.compiled, done.reason
    assert list(net.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(net.layer.weight.grad, torch.full_like(net.layer.weight, 7))
    assert net.layer.bias.grad is None
    assert not net.training
    assert not net.drop.training
    assert torch.equal(torch.get_rng_state(), random)


def test_the_handle_follows_the_parameters_and_is_no_module(backend):
    backend(as_traced)
    net, image = network().train(), torch.randn(2, 1, 8, 8)
    done = compile_network(net, image, precision="32-true")
    assert done.compiled, done.reason
    assert not isinstance(done.forward, nn.Module)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5)
    for ours, eager in zip(done.forward(image), net(image), strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-5)


def test_a_compiler_that_fails_leaves_the_network(backend):
    def fail(graph, inputs):
        raise RuntimeError("no such instruction")

    backend(fail)
    net = network()
    done = compile_network(net, torch.randn(2, 1, 8, 8), precision="32-true")
    assert not done.compiled
    assert done.forward is net
    assert "no such instruction" in done.reason
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_compiler_that_computes_something_else_is_left_out(backend):
    def wrong(graph, inputs):
        return lambda *arguments: tuple(out * 1.01 for out in graph.forward(*arguments))

    backend(wrong)
    done = compile_network(network(), torch.randn(2, 1, 8, 8), precision="32-true")
    assert not done.compiled
    assert "something else" in done.reason


def test_numbers_that_are_none_are_left_out(backend):
    def broken(graph, inputs):
        return lambda *arguments: tuple(out * float("nan") for out in graph.forward(*arguments))

    backend(broken)
    assert not compile_network(network(), torch.randn(2, 1, 8, 8), precision="32-true").compiled


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), KeyboardInterrupt()])
def test_what_is_not_the_compilers_fault_is_passed_on(backend, error):
    def fail(graph, inputs):
        raise error

    backend(fail)
    net = network()
    with pytest.raises(type(error)) as raised:
        compile_network(net, torch.randn(2, 1, 8, 8), precision="32-true")
    assert raised.value is error
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_lack_of_memory_is_told_by_the_caller(backend):
    def fail(graph, inputs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    backend(fail)
    with pytest.raises(RuntimeError, match="can't allocate"):
        compile_network(
            network(),
            torch.randn(2, 1, 8, 8),
            precision="32-true",
            is_out_of_memory=lambda error: "can't allocate" in str(error),
        )


def test_a_preemption_is_passed_on(backend):
    def fail(graph, inputs):
        raise Preempted("a signal", where="here", why="it came", mend="again")

    backend(fail)
    with pytest.raises(Preempted):
        compile_network(network(), torch.randn(2, 1, 8, 8), precision="32-true")


def test_it_pays_where_it_saves_more_than_it_costs():
    break_even = COMPILE_SECONDS["cuda"] / GAIN["cuda"]
    assert compile_pays("cuda", round(break_even * 10) + 1, 0.1)[0]
    assert not compile_pays("cuda", round(break_even * 10) - 1, 0.1)[0]
    assert not compile_pays("cpu", 10**9, 1.0)[0]
    assert not compile_pays("mps", 10**9, 1.0)[0]
    assert all(compile_pays(device, 10, 0.1)[1] for device in ("cpu", "cuda", "mps"))


PROGRAM = """
import sys, torch
from segkit.networks.compilation import compile_network
from segkit.networks.unet import UNet

torch.manual_seed(0)
topology = dict(features=(4, 8), strides=[(1, 1), (2, 2)], kernel_sizes=[(3, 3)] * 2, dimensions=2)
net = UNet(1, 2, **topology)
images = torch.randn(4, 2, 1, 16, 16)
names = list(net.state_dict())
done = compile_network(net, images[0], precision="32-true")
assert list(net.state_dict()) == names
print(done.compiled, done.reason)
if done.compiled:
    start = {name: value.clone() for name, value in net.state_dict().items()}
    results = []
    for forward in (done.forward, net):
        net.load_state_dict(start)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        losses = []
        for image in images:
            optimizer.zero_grad()
            loss = sum(level.square().mean() for level in forward(image))
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        results.append((torch.stack(losses), torch.cat([p.detach().flatten() for p in net.parameters()])))
    for compiled, eager in zip(*results):
        torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-4)
"""


def run(tmp_path, **environment):
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), **environment}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_compiled_steps_are_the_eager_ones(tmp_path):
    said = run(tmp_path)
    assert said.startswith("True") or "compiler" in said.lower(), said


@pytest.mark.slow
def test_a_broken_compiler_leaves_the_network(tmp_path):
    assert run(tmp_path, CXX="/bin/false").startswith("False torch.compile failed")
