"""The images in the model's eyes: one point an image, by t-SNE, coloured by an attribute.

A point is the mean visual token of an image. Every model and layer is embedded by itself, since
distances between the spaces of two mean nothing. A picture is then turned so that the images lie
near where they are in the first one, which changes nothing that t-SNE shows: who is near whom, and
neither distances nor sizes of clusters. The number below each panel does not depend on t-SNE.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mixlens.analysis.agreement import Agreement, agreement_gain, neighbour_agreement
from mixlens.analysis.measured import ModelResults
from mixlens.analysis.words import number
from mixlens.report.style import BASE_BAND, BLUE, GREEN, GREY, ORANGE, WIDTH, new_figure
from mixlens.scenes.render import RGB

POINTS = 1500  # images at most, the first: more do not make a picture clearer
COMPONENTS = 50
PERPLEXITY = 30
FEWEST = 20  # images; fewer make no picture
COLUMNS = 4
_LEGEND = 1.1  # inches

AGREEMENT = (
    "agreement: 1 where the 10 nearest images are alike in the attribute, 0 where no more than any "
    "two images are; measured on the mean tokens themselves, with jackknife intervals over images"
)
"""What the number below each panel is, for captions."""

_NAMED = ("dominant_colour", "dominant_supercategory", "dominant_category", "dominant_shape")
_COUNTED = ("object_count",)
_SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
_REST = "others"
_OTHERS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#1a1a1a")


@dataclass(frozen=True)
class Panel:
    """One space: where the images lie in it and in its picture.

    Attributes:
        model: whose.
        layer: of the decoder.
        points: the mean visual token of each image, every dimension with mean 0 and deviation 1
            over the images (so that a few very large dimensions do not decide alone).
        picture: the same by t-SNE.
    """

    model: str
    layer: int
    points: Float[np.ndarray, "images width"]
    picture: Float[np.ndarray, "images 2"]


def embedding_of(models: Mapping[str, ModelResults]) -> Figure | None:
    """The figure for models that were measured on the same images, in the order given.

    One model is shown at its first, a middle and its last layer, two at a middle and the last,
    more (four at most) at the last. An image without a finite mean token somewhere is left out
    everywhere. None where there are no embeddings, fewer than `FEWEST` images, or no attribute to
    colour by.
    """
    measured = {name: one for name, one in models.items() if one.embeddings is not None}
    if not measured:
        return None
    first = next(iter(measured.values()))
    spaces = _spaces(measured)
    there = np.logical_and.reduce([np.isfinite(space).all(1) for _, _, space in spaces])
    attributes = first.attributes[there].iloc[:POINTS]
    colour_by = _attributes(attributes)
    if len(attributes) < FEWEST or not colour_by:
        return None
    panels: list[Panel] = []
    for name, layer, space in spaces:
        points = standardised(space[there][:POINTS])
        picture = embed(points)
        if panels:
            picture = turned(picture, panels[0].picture)
        panels.append(Panel(name, layer, points, picture))
    return embedding_figure(panels, attributes[colour_by])


def standardised(space: Float[np.ndarray, "images width"]) -> Float[np.ndarray, "images width"]:
    """Every dimension with mean 0 and deviation 1 over the images; 0 where it is constant."""
    wide = space.astype(float)
    spread = wide.std(axis=0)
    constant = spread <= 1e-7 * np.abs(wide).max(axis=0)
    return np.where(constant, 0.0, (wide - wide.mean(axis=0)) / np.where(constant, 1.0, spread))


def embed(
    points: Float[np.ndarray, "images width"], seed: int = 0
) -> Float[np.ndarray, "images 2"]:
    """t-SNE of the first 50 principal components; the same for the same seed.

    Perplexity is 30, or a third of the images where these are fewer than 90. It begins at the
    first two principal components.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    # With several threads, sums depend on who is first.
    with threadpool_limits(1):
        components = PCA(min(COMPONENTS, *points.shape), svd_solver="full").fit_transform(points)
        perplexity = min(PERPLEXITY, (len(points) - 1) / 3)
        return TSNE(perplexity=perplexity, random_state=seed).fit_transform(components)


def turned(
    picture: Float[np.ndarray, "images 2"], onto: Float[np.ndarray, "images 2"]
) -> Float[np.ndarray, "images 2"]:
    """The picture, rotated or mirrored to bring its images nearest to where they are in `onto`."""
    from scipy.linalg import orthogonal_procrustes

    centred = picture - picture.mean(axis=0)
    rotation, _ = orthogonal_procrustes(centred, onto - onto.mean(axis=0))
    return centred @ rotation


def embedding_figure(panels: Sequence[Panel], attributes: pd.DataFrame) -> Figure:
    """A row an attribute, a column a panel; see `embedding_of`.

    Args:
        panels: of the same images; at most four.
        attributes: a column each to colour by, a row an image. Names become colours of their own
            (those that are colours, themselves), the rarest of very many one grey, numbers a scale.
    """
    rows, columns = len(attributes.columns), len(panels)
    side = (WIDTH - _LEGEND) / columns
    several = len({panel.model for panel in panels}) > 1
    figure = new_figure(0.2 + (side + 0.25 + 0.15 * several) * rows)
    ratios = [*[side] * columns, _LEGEND]
    axes = figure.subplots(rows, columns + 1, squeeze=False, width_ratios=ratios)
    for axis, panel in zip(axes[0], panels, strict=False):
        layer = "decoder input" if panel.layer == 0 else f"layer {panel.layer}"
        axis.set_title(f"{panel.model}\n{layer}" if several else layer.capitalize())
    for row, (name, column) in zip(axes, attributes.items(), strict=True):
        values = column.to_numpy()
        before: dict[int, Agreement] = {}
        for axis, panel in zip(row, panels, strict=False):
            found = neighbour_agreement(panel.points, values)
            first = before.setdefault(panel.layer, found)
            gain = None if first is found else agreement_gain(first, found)
            axis.set_xlabel(_number(found, gain), fontsize=7)
        _colour(row, panels, values, str(name).replace("_", " ").capitalize())
    return figure


def _spaces(measured: Mapping[str, ModelResults]) -> list[tuple[str, int, np.ndarray]]:
    """Model, layer and mean visual tokens [images, width], in the order of the panels."""
    spaces = []
    for name, one in list(measured.items())[:COLUMNS]:
        table = one.embeddings
        assert table is not None
        visual = table[table["stream"] == "visual"]
        layers = sorted(visual["layer"].unique())
        shown = {1: (0, len(layers) // 2, -1), 2: (len(layers) // 2, -1)}.get(len(measured), (-1,))
        images = next(iter(measured.values())).attributes["example_id"]
        for layer in dict.fromkeys(layers[at] for at in shown):
            of_layer = visual[visual["layer"] == layer].set_index("example_id")["vector"]
            spaces.append((name, int(layer), np.stack(of_layer.loc[images].to_list())))
    if len(measured) > 1:  # the same layer of all models side by side
        order = list(dict.fromkeys(layer for _, layer, _ in spaces))
        spaces.sort(key=lambda space: order.index(space[1]))
    return spaces


def _attributes(table: pd.DataFrame) -> list[str]:
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
    counts = pd.Series(values).value_counts()
    if len(counts) <= len(_SHAPES):
        return np.asarray(values)
    common = counts.index[: len(_SHAPES) - 1]
    return np.where(np.isin(values, common), values, _REST)


def _number(found: Agreement, gain: tuple[float, float, float] | None) -> str:
    if np.isnan(found.value):
        return "agreement not estimable"
    value, low, high = (number(one, 2) for one in (found.value, found.low, found.high))
    text = f"agreement {value} [{low}, {high}]"
    if gain is not None:
        value, low, high = (number(one, 2, signed=True) for one in gain)
        text += f"\nchange {value} [{low}, {high}]"
    return text


def _colour(
    row: Sequence[Axes],
    panels: Sequence[Panel],
    values: Shaped[np.ndarray, "images"],
    label: str,
) -> None:
    """The points of a row of panels, and what their colours mean in the last of its axes."""
    numbers = values.dtype.kind in "biuf"
    values = values if numbers else _shown(values)
    kinds = [] if numbers else sorted(set(values), key=lambda name: (name == _REST, name))
    looks = {
        kind: (np.array(RGB[kind]) / 255 if kind in RGB else _OTHERS[at % len(_OTHERS)], marker)
        for at, (kind, marker) in enumerate(zip(kinds, _SHAPES, strict=False))
    }
    if _REST in looks:
        looks[_REST] = (BASE_BAND, ".")
    for axis, panel in zip(row, panels, strict=False):
        x, y = panel.picture.T
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
