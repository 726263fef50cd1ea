"""Which listed images are used, in which split, and how their frames lie in the upright picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from mixlens.sources.coco.documents import ImageRecord
from mixlens.sources.coco.exif import Direction, Frame, declared_in, doubt, sides
from mixlens.sources.coco.inspect import Header
from mixlens.sources.coco.ledger import Ledger, Split


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that can be used.

    Attributes:
        record: what the file of annotations says about it.
        path: relative to the root of the data set, or a URL.
        header: what its file says.
        split: that it belongs to.
        frame: in which its annotations lie.
    """

    record: ImageRecord
    path: str
    header: Header
    split: Split
    frame: Frame = "upright"

    @property
    def sides(self) -> tuple[int, int]:
        """Width and height of the frame that its annotations lie in, pixels."""
        return sides(self.header, self.frame)


def sound_pictures(
    records: Sequence[ImageRecord],
    paths: Sequence[str],
    headers: Sequence[Header],
    split: Split,
    share: float | None,
    direction: Direction,
    ledger: Ledger,
) -> list[Picture]:
    """The images of a file that are sound, in its order.

    The declared size has to be that of the upright picture, or that of the file before its EXIF
    orientation is applied; otherwise nobody can say where objects are.

    Args:
        records: of the images.
        paths: of each.
        headers: of each.
        split: of the file.
        share: of the images that are held out instead, by what their files contain; None: none.
        direction: how the annotations lie of images that EXIF turns.
        ledger: gets those that are left out, turned or doubtful.
    """
    pictures = []
    for record, path, header in zip(records, paths, headers, strict=True):
        own = split
        if share is not None and header.fingerprint and _place(header.fingerprint) < share:
            own = "held_out"
        reason, detail = header.problem, header.detail
        frame: Frame = direction.tally.frame if direction.tally else "upright"
        is_used = not reason
        if is_used and not declared_in(record, header):
            reason, is_used = "wrong_size", False
            detail = (f"declared {record.width} x {record.height}, the upright picture is "
                      f"{header.width} x {header.height}")  # fmt: skip
        elif is_used and header.orientation > 1:
            reason, detail = doubt(record, header, direction)
            is_used = reason != "exif_contradiction"
        if reason:
            ledger.add(own, "image", reason, image_id=record.id, file_name=record.file_name,
                       detail=detail)  # fmt: skip
        if is_used:
            turned = header.orientation > 1
            pictures.append(Picture(record, path, header, own, frame if turned else "upright"))
    return pictures


def _place(fingerprint: str) -> float:
    """From 0 to 1, as even as the bits of a hash."""
    return int(fingerprint[:13], 16) / 16**13


def without_held_out(
    train: Sequence[Picture], held_out: Sequence[tuple[str, Header]], ledger: Ledger
) -> list[Picture]:
    """The training images whose file is not also held out: not the same path, not the same content.

    Args:
        train: images that could be trained on.
        held_out: path and header of each image that the held-out file lists, sound or not.
        ledger: gets those that are left out.
    """
    paths = {path for path, _ in held_out}
    contents = {header.fingerprint for _, header in held_out}
    kept = []
    for picture in train:
        if picture.path in paths or picture.header.fingerprint in contents:
            same = "path" if picture.path in paths else "content"
            ledger.add("train", "image", "held_out", image_id=picture.record.id,
                       file_name=picture.record.file_name,
                       detail=f"a held-out image has the same {same}")  # fmt: skip
        else:
            kept.append(picture)
    return kept


def upright_boxes(
    boxes: Float[np.ndarray, "objects 4"],
    frames: Int64[np.ndarray, "objects 2"],
    orientation: Int64[np.ndarray, " objects"],
) -> Float[np.ndarray, "objects 4"]:
    """Boxes of stored frames as they lie in the upright picture.

    Args:
        boxes: x0, y0, x1, y1 in the frame of the file, pixels.
        frames: its width and height.
        orientation: EXIF 2 (mirrored left to right), 3 (half a turn), 4 (mirrored top to bottom),
            5 (rows are columns), 6 (turn right), 7 (both exchanged and turned over) or 8 (turn
            left); those of 1 stay.
    """
    x0, y0, x1, y1 = boxes.T
    width, height = frames.T.astype(float)
    upright = {
        2: (width - x1, y0, width - x0, y1),
        3: (width - x1, height - y1, width - x0, height - y0),
        4: (x0, height - y1, x1, height - y0),
        5: (y0, x0, y1, x1),
        6: (height - y1, x0, height - y0, x1),
        7: (height - y1, width - x1, height - y0, width - x0),
        8: (y0, width - x1, y1, width - x0),
    }
    turned = boxes.copy()
    for way, corners in upright.items():
        which = orientation == way
        turned[which] = np.stack(corners, 1)[which]
    return turned
