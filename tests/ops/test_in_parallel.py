"""Pieces of work on torch's threads: order, what holds inside, and what is left as it was."""

import threading

import pytest
import torch

from segkit.ops.in_parallel import in_parallel


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def number_in_a_new_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_results_come_in_the_order_of_the_pieces(threads):
    assert in_parallel(lambda piece: piece**2, range(20)) == [n**2 for n in range(20)]
    assert in_parallel(lambda piece: piece, []) == []


def test_each_piece_has_one_thread_and_no_gradients(threads):
    weight = torch.ones(3, requires_grad=True)

    def look(_):
        return torch.get_num_threads(), (2 * weight).requires_grad, torch.is_autocast_enabled("cpu")

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert set(in_parallel(look, range(8))) == {(1, False, False)}


def test_torch_keeps_its_threads(threads):
    in_parallel(lambda piece: piece, range(8))
    assert torch.get_num_threads() == threads
    assert number_in_a_new_thread() == threads


def test_several_threads_work_at_the_same_time():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        both = threading.Barrier(2)
        # Each waits for the other: one after the other they would wait for ever.
        in_parallel(lambda _: both.wait(timeout=60), range(2))
    finally:
        torch.set_num_threads(before)


def test_what_a_piece_raises_is_raised(threads):
    def refuse(piece):
        if piece == 3:
            raise ValueError("piece 3")
        return piece

    with pytest.raises(ValueError, match="piece 3"):
        in_parallel(refuse, range(8))


def test_inside_a_piece_it_is_a_loop(threads):
    assert in_parallel(lambda n: sum(in_parallel(lambda m: m, range(n))), range(5)) == [0, 0, 1, 3, 6]
