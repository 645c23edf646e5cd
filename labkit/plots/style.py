"""What all pictures share: colours, line styles, and a Figure that shows itself once in a notebook."""

from __future__ import annotations

import base64
import functools
import html
import io
from collections.abc import Callable
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

# Okabe and Ito's palette, https://jfly.uni-koeln.de/color/; yellow last, it is faint on white
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, BLACK, YELLOW = "#56B4E9", "#CC79A7", "#000000", "#F0E442"
PALETTE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK, YELLOW)
GREY = "#767676"  # 4.5:1 on white, the least that small text needs
PALE = "#D9D9D9"
FAINT = "#B3B3B3"  # lines that stand behind others
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":")

WIDTH = 8.0  # inches: with DPI 120 a notebook cell's width
STYLE: dict[Any, Any] = {
    "figure.dpi": 120,
    "savefig.dpi": 120,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E5E5E5",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
}


class Picture(Figure):
    """A Figure with a sentence for those who cannot see it; not pyplot's, so no window and no second copy."""

    labkit_alt: str = ""

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        """What a notebook stores: the image and the sentence, as plain text and as the image's alt text.

        Twice, because JupyterLab shows a bare image without its alt text, and other tools want one.
        """
        with io.BytesIO() as buffer:
            self.savefig(buffer, format="png", metadata={"Software": None, "Description": self.labkit_alt})
            png = base64.b64encode(buffer.getvalue()).decode()
        alt = html.escape(self.labkit_alt)
        shown = (
            f'<img alt="{alt}" src="data:image/png;base64,{png}" style="background: #fff; max-width: 100%">'
        )
        data = {"text/html": shown, "image/png": png, "text/plain": self.labkit_alt}
        return data, {"image/png": {"alt": self.labkit_alt}}


P = ParamSpec("P")


def styled(draw: Callable[P, Picture]) -> Callable[P, Picture]:
    """Draws in labkit's style, whatever the notebook's own settings are, and leaves those alone."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Picture:
        with mpl.rc_context():
            mpl.rcdefaults()
            for key, value in STYLE.items():
                mpl.rcParams[key] = value
            return draw(*args, **kwargs)

    return wrapper


def new_picture(height: float, width: float = WIDTH) -> Picture:
    """An empty figure, size in inches, whose parts make room for each other."""
    return Picture(figsize=(width, height), layout="constrained")


def colour(index: int) -> str:
    return PALETTE[index % len(PALETTE)]


def line_style(index: int) -> dict[str, Any]:
    """Colour, marker and dashes of the index-th line: three ways to tell it from the others."""
    return {
        "color": colour(index),
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index % len(DASHES)],
    }


def percent_axis(axis: Any) -> None:
    """Ticks of an axis of fractions as per cent."""
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{round(100 * x, 6):g} %"))


def percent(fraction: float) -> str:
    """0.9151 as `91.5 %`."""
    return f"{100 * fraction:.1f} %"


def short(name: str) -> str:
    """A layer's name without what all of them share: `body_op.3.conv1.0.conv` as `body_op.3.conv1`."""
    return name.removesuffix(".conv").removesuffix(".linear").removesuffix(".0")


def need(data: Any, what: str) -> None:
    """Raises ValueError if there is nothing to draw."""
    if not len(data):
        raise ValueError(f"nothing to draw: {what}")


def listing(words: list[str], most: int = 4) -> str:
    """`a, b and c`; beyond `most`, `a, b, c and 17 more`."""
    if len(words) > most:
        words = [*words[: most - 1], f"{len(words) - most + 1} more"]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
