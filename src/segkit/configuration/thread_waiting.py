"""How torch's threads wait for one another: awake for a moment, then asleep.

A training step on processors meets at thousands of short parallel regions. Threads that fall asleep at once pay a
call of the kernel for each: a quarter of a step of the rung `small`. Threads that spin without end keep the one they
wait for from its core as soon as the machine does anything else besides. So they spin for some microseconds.

A step of 2 x 40x56x40 patches on two cores took, in seconds (medians of 4 to 6 epochs of 40 steps each, interleaved):

    asleep at once         0.22 idle    0.37 beside a process that keeps one core busy
    2000 turns             0.18         0.41
    20000 turns            0.18         0.70
"""

import os
from collections.abc import MutableMapping

WAIT_POLICY, SPIN_COUNT = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
_TURNS = 2000


def settle_waiting(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set how threads wait, unless whoever starts the program has; OpenMP reads it when torch is imported.

    Args:
        environment: Variables of the process.
    """
    if WAIT_POLICY in environment or SPIN_COUNT in environment:
        return
    environment[WAIT_POLICY] = "PASSIVE"
    # GNU's OpenMP, which torch brings along on Linux; others know the policy alone.
    environment[SPIN_COUNT] = str(_TURNS)
