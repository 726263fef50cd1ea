"""Places and objects of a photograph as text: its cells, its boxes and its graph."""

import numpy as np
from jaxtyping import Float

from mixlens.tasks.photo.objects import DIRECTION_MARGIN
from mixlens.tasks.photo.photo import Photo
from mixlens.tasks.scene_graph import AXIS_MARGIN
from mixlens.tasks.vocabulary import GRID, cell_words


def box_words(photo: Photo, i: int) -> str:
    """The box of an object in whole percent: `12 40 55 97`."""
    sides = np.array([photo.width, photo.height, photo.width, photo.height], np.float64)
    return " ".join(
        str(round(value)) for value in (100 * photo.boxes[i].astype(np.float64) / sides).tolist()
    )


def graph_words(photo: Photo, names: tuple[str, ...]) -> str:
    """All objects in raster order with cell and category, and relations between neighbours.

    The grammar is in `prompts.yaml`; margins are those of scene graphs.
    """
    centres = _centres(photo)
    objects = []
    for (x, y), category in zip(centres.tolist(), photo.category.tolist(), strict=True):
        row, column = (min(int(value * GRID), GRID - 1) for value in (y, x))
        objects.append((row, column, x, y, names[category]))
    objects.sort()
    listed = " ; ".join(f"{cell_words(row, column)} {name}" for row, column, _, _, name in objects)
    triplets = []
    for number in range(1, len(objects)):
        (_, _, x0, y0, _), (_, _, x1, y1, _) = objects[number - 1 : number + 1]
        across, down = x1 - x0, y1 - y0
        width, height = abs(across), abs(down)
        if max(width, height) < DIRECTION_MARGIN or abs(width - height) < AXIS_MARGIN:
            continue
        if width > height:
            word = "left" if across > 0 else "right"
        else:
            word = "above" if down > 0 else "below"
        triplets.append(f"{number} {word} {number + 1}")
    return f"{listed} | {' ; '.join(triplets)}" if triplets else listed


def _centres(photo: Photo) -> Float[np.ndarray, "objects 2"]:
    sides = np.array([photo.width, photo.height], np.float64)
    return (photo.boxes[:, :2].astype(np.float64) + photo.boxes[:, 2:]) / 2 / sides
