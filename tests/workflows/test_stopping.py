import os
import signal
import threading

import pytest

from segkit.callbacks.preemption import SIGNALS
from segkit.errors import Preempted
from segkit.workflows.stopping import stoppable


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_an_exception_and_the_second_the_systems(number):
    before = [signal.getsignal(each) for each in SIGNALS]
    with stoppable():
        with pytest.raises(Preempted, match=signal.Signals(number).name) as raised:
            os.kill(os.getpid(), number)
        assert raised.value.exit_code == 75
        assert [signal.getsignal(each) for each in SIGNALS] == [signal.SIG_DFL] * len(SIGNALS)
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_another_thread_changes_nothing():
    before, inside = signal.getsignal(signal.SIGTERM), []

    def work():
        with stoppable():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]
