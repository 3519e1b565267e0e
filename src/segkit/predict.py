"""Predict masks for new images: `python -m segkit.predict key=value ...` or `segkit.predict([...])`."""

from segkit._door import open_door

open_door(__name__, "predict")
