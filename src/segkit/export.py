"""Give a trained run to another program: `python -m segkit.export key=value ...` or `segkit.export([...])`."""

from segkit._door import open_door

open_door(__name__, "export")
