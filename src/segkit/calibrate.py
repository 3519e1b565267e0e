"""Fit a temperature to a run or ensemble: `python -m segkit.calibrate key=value ...` or `segkit.calibrate([...])`."""

from segkit._door import open_door

open_door(__name__, "calibrate")
