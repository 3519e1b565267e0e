"""A matplotlib figure as PNG, without pyplot: nothing global, so it may run in any thread and leaks no figure."""

import io

from matplotlib.figure import Figure


def png_bytes(figure: Figure) -> bytes:
    """The picture; the same bytes for the same figure."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", facecolor=figure.get_facecolor(), metadata={"Software": None})
    return picture.getvalue()
