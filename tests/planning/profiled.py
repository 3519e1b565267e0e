"""The most bytes of tensors that a computation on the CPU really had at once, by torch's profiler."""

from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile


class Peak:
    """Measures from its making until `stop`.

    Nothing that was there before may be freed meanwhile: the profiler would not see that.

    Args:
        held: Bytes of what is there before and stays.
    """

    def __init__(self, *, held: int) -> None:
        self._held = held
        self._profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._profiler.__enter__()

    def stop(self) -> int:
        """The peak, bytes."""
        self._profiler.__exit__(None, None, None)
        sizes = []
        left = list(self._profiler.profiler.kineto_results.experimental_event_tree())
        while left:
            event = left.pop()
            left += event.children
            if event.tag == _EventType.Allocation and event.extra_fields.device.type == "cpu":
                sizes.append((event.start_time_ns, event.extra_fields.alloc_size))
        now = most = self._held
        for _, size in sorted(sizes, key=lambda each: each[0]):  # freed blocks are negative
            now += size
            most = max(most, now)
        return most
