"""Look for faults in a data set: `python -m segkit.check key=value ...` or `segkit.check([...])`."""

from segkit._door import open_door

open_door(__name__, "check")
