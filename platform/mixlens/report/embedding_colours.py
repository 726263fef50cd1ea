"""What the points of an embedding are coloured by, and how."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from mixlens.report.style import BASE_BAND, BLUE, GREEN, GREY, ORANGE
from mixlens.scenes.render import RGB

_NAMED = ("dominant_colour", "dominant_supercategory", "dominant_category", "dominant_shape")
_COUNTED = ("object_count",)
_SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
_REST = "others"
_UNKNOWN = "unknown"
_OTHERS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#1a1a1a")


def attributes_shown(table: pd.DataFrame) -> list[str]:
    """What to colour by: the first named and the first counted attribute that differ at all."""
    chosen = []
    for names in (_NAMED, _COUNTED):
        chosen += [n for n in names if n in table and _is_usable(table[n], n in _COUNTED)][:1]
    return chosen


def _is_usable(values: pd.Series, is_counted: bool) -> bool:
    """Whether a picture of it shows something: names that a colour of their own each tell apart.

    Of more names than marks, those with a mark of their own must be most images.
    """
    if values.nunique() < 2:
        return False
    return is_counted or (_shown(values) != _REST).mean() > 0.5


def _shown(values: Shaped[np.ndarray, "images"] | pd.Series) -> np.ndarray:
    """Names as a picture shows them: of more than there are marks, the rarest are all `others`."""
    values = pd.Series(values).astype(object).fillna(_UNKNOWN)
    counts = values.value_counts()
    if len(counts) <= len(_SHAPES):
        return np.asarray(values)
    common = counts.index[: len(_SHAPES) - 1]
    return np.where(np.isin(values, common), values, _REST)


def draw_points(
    row: Sequence[Axes],
    pictures: Sequence[Float[np.ndarray, "images 2"]],
    values: Shaped[np.ndarray, "images"],
    label: str,
) -> None:
    """Draw the points of a row of panels, and what their colours mean in the last of its axes.

    Args:
        row: an axis a picture, and one for the legend.
        pictures: where the images lie in each panel.
        values: of the attribute, one an image.
        label: the attribute's name.
    """
    numbers = values.dtype.kind in "biuf"
    values = values if numbers else _shown(values)
    kinds = [] if numbers else sorted(set(values), key=lambda name: (name == _REST, name))
    looks = {
        kind: (np.array(RGB[kind]) / 255 if kind in RGB else _OTHERS[at % len(_OTHERS)], marker)
        for at, (kind, marker) in enumerate(zip(kinds, _SHAPES, strict=False))
    }
    if _REST in looks:
        looks[_REST] = (BASE_BAND, ".")
    for axis, picture in zip(row, pictures, strict=False):
        x, y = picture.T
        if numbers:
            shown = axis.scatter(x, y, c=values.astype(float), cmap="cividis", s=10, lw=0)
        for kind, (colour, marker) in looks.items():
            some = values == kind
            axis.scatter(x[some], y[some], color=[colour], marker=marker, s=13,
                         edgecolors=GREY, lw=0.3)  # fmt: skip
        axis.set(xticks=[], yticks=[])
        axis.grid(visible=False)
        axis.set_aspect("equal", adjustable="datalim")
        axis.set_box_aspect(1)
        axis.spines[["top", "right"]].set_visible(True)
    legend = row[-1]
    legend.axis("off")
    if numbers:
        bar = legend.figure.colorbar(shown, cax=legend.inset_axes((0.0, 0.05, 0.12, 0.78)))
        bar.outline.set_visible(False)
        bar.ax.yaxis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=values.dtype.kind in "iu"))
        legend.text(0.0, 0.9, label, transform=legend.transAxes, fontsize=8)
        return
    legend.legend(
        handles=[
            Line2D([], [], ls="", marker=marker, color=colour, mec=GREY, mew=0.3, label=kind)
            for kind, (colour, marker) in looks.items()
        ],
        title=label, title_fontsize=8, alignment="left", loc="upper left", handletextpad=0.2,
        labelspacing=0.3, borderpad=0, bbox_to_anchor=(-0.05, 1.0),
    )  # fmt: skip
