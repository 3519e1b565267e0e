"""Random numbers that are a pure function of (seed, n, stream).

Philox is a counter-based generator: its output is a hash of a key and a counter. The seed is the key; the two
upper words of the 256-bit counter are `n` and `stream`; the two lower ones count the numbers drawn. Any number can
be reached without those before it, so no state has to be stored to go on where a run stopped, and what one sample
draws cannot shift what the next one gets.

Streams: 0 case and patch, 1 augmentation parameters, 2 noise fields, 3 splits, 4 order of a pass, 5 dropout,
6 initial weights, 7 substitutes of unreadable cases.

Reference: Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011.
"""

import numpy as np

from segkit.errors import UsageError

_WORD = 1 << 64


def generator(seed: int, n: int, stream: int) -> np.random.Generator:
    """A generator of its own for sample `n` of `stream`.

    Args:
        seed: Key, 0 <= seed < 2^64.
        n: Running number of the sample (or pass, or case), 0 <= n < 2^64.
        stream: What the numbers are for; generators of different streams are independent.

    Returns:
        A numpy Generator that yields the same numbers on every machine.

    Raises:
        UsageError: An argument is negative or needs more than 64 bits.
    """
    for name, value in (("seed", seed), ("n", n), ("stream", stream)):
        if not 0 <= value < _WORD:
            raise UsageError(
                f"{name} is out of range", where=name, why=f"got {value}", mend=f"{name}=0 ... 18446744073709551615"
            )
    counter = np.array([0, 0, n, stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=seed, counter=counter))


def torch_seed(seed: int, n: int, stream: int) -> int:
    """A seed of 63 bits for `torch.Generator.manual_seed`, a pure function of (seed, n, stream)."""
    return int(generator(seed, n, stream).integers(1 << 63))
