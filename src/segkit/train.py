"""Train a model: `python -m segkit.train key=value ...` or `segkit.train([...])`."""

from segkit._door import open_door

open_door(__name__, "train")
