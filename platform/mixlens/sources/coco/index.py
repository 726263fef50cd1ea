"""The columnar index of a data set: files that workers map into memory, and one record about them.

images.arrow and attributes.arrow have a row an image (training images first), objects.arrow a row
an annotation and questions.arrow a row a question, both in the order of the images.
left_out.parquet is for people; record.json is written last.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int8, Int64, UInt16
from pyarrow import ipc

from mixlens.errors import DataError, explain, first_line
from mixlens.sources.example import Attributes
from mixlens.sources.source import RECORD
from mixlens.tasks.photo.photo import Categories, Photo
from mixlens.tasks.photo.rows import QUESTION

LEFT_OUT = "left_out.parquet"
TABLES = ("images", "attributes", "objects", "questions")
CORNERS = ("x0", "y0", "x1", "y1")


def write_columns(file: Path, columns: Mapping[str, Any]) -> None:
    """One Arrow file of one batch, so that every column is one stretch of memory."""
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column) for column in columns.values()
    ]
    batch = pa.RecordBatch.from_arrays(arrays, list(columns))
    with ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def _read_columns(file: Path) -> dict[str, pa.Array]:
    batch = ipc.open_file(pa.memory_map(str(file))).get_batch(0)
    return dict(zip(batch.schema.names, batch.columns, strict=True))


def _numbers(column: pa.Array) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False)


class CocoIndex:
    """An index that is open for reading; `open_index` gives it.

    Attributes:
        record: what stands in record.json.
        split: of each image, 0 (train) or 1 (held out).
        image_id: of each image, in its file of annotations.
        carries: bit i is set if an image can carry a turn of group i of `tasks.photo.PHOTO_GROUPS`.
        whole: whether an image is annotated for all categories; else its attributes are unknown.
        categories: of the data set.
        possible: of `tasks.photo.find.Questions`.
        attribute_columns: name -> value of each image; names are Python strings. What is unknown
            is NaN, of names None.
    """

    split: Int8[np.ndarray, " images"]
    image_id: Int64[np.ndarray, " images"]
    carries: UInt16[np.ndarray, " images"]
    whole: Bool[np.ndarray, " images"]
    possible: Bool[np.ndarray, "2 categories"]

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.record = json.loads((folder / RECORD).read_text())
        images, attributes, objects, questions = (
            _read_columns(folder / f"{name}.arrow") for name in TABLES
        )
        self.categories = Categories(
            tuple(self.record["categories"]), tuple(self.record["supercategories"])
        )
        self.possible = np.array(self.record["possible"])
        self.split = _numbers(images["split"])
        self.image_id = _numbers(images["image_id"])
        self.carries = _numbers(images["carries"])
        self.whole = _numbers(images["complete"].is_null())
        self.attribute_columns = {name: _numbers(column) for name, column in attributes.items()}
        self._paths, self._names = images["path"], images["file_name"]
        self._captions = images["captions"]
        self._sides, self._spans = (
            np.stack([_numbers(images[name]) for name in names], 1).astype(np.int64)
            for names in (
                ("width", "height"),
                ("first_object", "objects", "first_question", "questions"),
            )
        )
        self._category = _numbers(objects["category"])
        self._boxes = np.stack([_numbers(objects[name]) for name in CORNERS], 1)
        self._area, self._crowd = _numbers(objects["area"]), _numbers(objects["crowd"])
        self._questions = {name: _numbers(questions[name]) for name in QUESTION.names or ()}

    def __len__(self) -> int:
        return len(self.split)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_index, (self._folder,)

    def photo(self, row: int) -> Photo:
        """What the annotations say about an image."""
        first, objects, first_question, asked = self._spans[row].tolist()
        width, height = self._sides[row].tolist()
        own = slice(first, first + objects)
        questions = np.empty(asked, QUESTION)
        for name, column in self._questions.items():
            questions[name] = column[first_question : first_question + asked]
        return Photo(
            width=width,
            height=height,
            category=self._category[own],
            boxes=self._boxes[own],
            area=self._area[own],
            crowd=self._crowd[own],
            questions=questions,
            captions=tuple(self._captions[row].as_py()),
        )

    def attributes(self, row: int) -> Attributes:
        """The attributes of an image, as plain Python values."""
        return {name: column.item(row) for name, column in self.attribute_columns.items()}

    def sizes(self, rows: Int64[np.ndarray, " rows"]) -> Int64[np.ndarray, "rows 2"]:
        """Height and width of images."""
        return self._sides[rows][:, ::-1]

    def path(self, row: int) -> str:
        """Where an image's file is, relative to the root of the data set, or a URL."""
        return self._paths[row].as_py()

    def file_name(self, row: int) -> str:
        """An image's file name, as its file of annotations has it."""
        return self._names[row].as_py()


def open_index(folder: Path) -> CocoIndex:
    """Open an index, once a process.

    Args:
        folder: that `build_index` made.

    Raises:
        DataError: there is no finished index, or it is damaged.
    """
    return _open(Path(folder))


@lru_cache(maxsize=16)
def _open(folder: Path) -> CocoIndex:
    if not (folder / RECORD).is_file():
        raise DataError(
            explain("index", str(folder), f"there is no finished index ({RECORD} is missing)",
                    "Start the job again: it makes the index first.")
        )  # fmt: skip
    try:
        return CocoIndex(folder)
    except (OSError, ValueError, KeyError) as error:  # Arrow's and JSON's are among them
        raise DataError(
            explain("index", str(folder), f"this index is damaged ({first_line(error)})",
                    "Delete the folder and start the job again: it makes the index anew.")
        ) from error  # fmt: skip
