"""Show the plan for a data set: `python -m segkit.plan key=value ...` or `segkit.plan([...])`."""

from segkit._door import open_door

open_door(__name__, "plan")
