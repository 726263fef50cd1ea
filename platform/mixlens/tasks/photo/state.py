"""What can still be asked about one photograph while its turns are drawn."""

import numpy as np
from jaxtyping import Bool

from mixlens.tasks.facts import Draw
from mixlens.tasks.photo.photo import Categories, Photo
from mixlens.tasks.photo.rows import FORMS, ROW_KINDS, category_names, spoken_name

Row = tuple[int, int, int, int, int]  # as `QUESTION`
_OF_TWO = ("horizontal", "vertical", "size")  # kinds of rows that hold two references


class PhotoState:
    """A photograph, what can still be asked about it, and what its turns have used up.

    Attributes:
        rows: per kind of row, those that have not been drawn yet.
        used: per property (an axis, size, place), the objects that a turn has asked it of. None is
            asked twice: of three objects, two answers could tell the third.
        asked_for: categories whose presence a turn has asked for.
    """

    __slots__ = ("asked_for", "categories", "names", "photo", "possible", "rows", "used")

    def __init__(
        self, photo: Photo, categories: Categories, possible: Bool[np.ndarray, "2 categories"]
    ) -> None:
        self.photo, self.categories, self.possible = photo, categories, possible
        self.names = category_names(categories)
        self.rows: dict[str, list[Row]] = {kind: [] for kind in ROW_KINDS}
        for row in photo.questions.tolist():
            self.rows[ROW_KINDS[row[1]]].append(row)
        self.asked_for: set[int] = set()
        self.used: dict[str, set[int]] = {
            what: set() for what in ("horizontal", "vertical", "size", "place")
        }

    def row(self, kind: str, draw: Draw, what: str = "") -> Row | None:
        """One of the rows that are left, none of whose objects a turn has used for `what`.

        Args:
            kind: of the row.
            draw: gives chance.
            what: the property that its turn uses up; none: its objects may come again.
        """
        rows = self.rows[kind]
        while rows:
            place = int(draw() * len(rows))
            rows[place], rows[-1] = rows[-1], rows[place]
            row = rows.pop()
            if not what:
                return row
            used = self.used[what]
            references = row[2:4] if kind in _OF_TWO else row[2:3]
            objects = {reference // FORMS for reference in references}
            if used.isdisjoint(objects):
                used |= objects
                return row
        return None

    def name(self, reference: int) -> str:
        """Such as `the leftmost dog`."""
        place, form = divmod(reference, FORMS)
        return spoken_name(self.names, int(self.photo.category[place]), form)

    def choices(self, names: tuple[str, ...], which: int) -> tuple[str, ...]:
        """The distinct ones of `names`, one of each category, that are possible answers.

        Args:
            names: as they are spoken.
            which: row of `Questions.possible`.
        """
        possible = np.flatnonzero(self.possible[which]).tolist()
        return tuple(dict.fromkeys(names[place] for place in possible))
