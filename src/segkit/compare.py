"""Compare models or methods on the same cases: `python -m segkit.compare key=value ...` or `segkit.compare([...])`."""

from segkit._door import open_door

open_door(__name__, "compare")
