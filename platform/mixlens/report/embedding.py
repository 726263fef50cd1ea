"""The images in the model's eyes: one point an image, by t-SNE, coloured by an attribute.

A point is the mean visual token of an image. Every model and layer is embedded by itself, since
distances between the spaces of two mean nothing. A picture is then turned so that the images lie
near where they are in the first one, which changes nothing that t-SNE shows: who is near whom, and
neither distances nor sizes of clusters. The number below each panel does not depend on t-SNE.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure

from mixlens.analysis.agreement import Agreement, agreement_gain, neighbour_agreement
from mixlens.analysis.words import number
from mixlens.measurement import Measured
from mixlens.report.embedding_colours import attributes_shown, draw_points
from mixlens.report.style import WIDTH, new_figure

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


def embedding_of(models: Mapping[str, Measured]) -> Figure | None:
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
    colour_by = attributes_shown(attributes)
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
    pictures = [panel.picture for panel in panels]
    for row, (name, column) in zip(axes, attributes.items(), strict=True):
        values = column.to_numpy()
        before: dict[int, Agreement] = {}
        for axis, panel in zip(row, panels, strict=False):
            found = neighbour_agreement(panel.points, values)
            first = before.setdefault(panel.layer, found)
            gain = None if first is found else agreement_gain(first, found)
            axis.set_xlabel(_number(found, gain), fontsize=7)
        draw_points(row, pictures, values, str(name).replace("_", " ").capitalize())
    return figure


def _spaces(measured: Mapping[str, Measured]) -> list[tuple[str, int, np.ndarray]]:
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


def _number(found: Agreement, gain: tuple[float, float, float] | None) -> str:
    if np.isnan(found.value):
        return "agreement not estimable"
    value, low, high = (number(one, 2) for one in (found.value, found.low, found.high))
    text = f"agreement {value} [{low}, {high}]"
    if gain is not None:
        value, low, high = (number(one, 2, signed=True) for one in gain)
        text += f"\nchange {value} [{low}, {high}]"
    return text
