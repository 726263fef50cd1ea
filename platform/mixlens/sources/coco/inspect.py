"""What image files are, from their first and last bytes, before anything is trained on them."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b

from mixlens.errors import first_line
from mixlens.sources.coco.names import Spellings
from mixlens.sources.files import Files
from mixlens.sources.pixels import ImageError, decode, opened, orientation

HEAD = 65536
# How the file of an undamaged image ends; of other formats, decoding tells.
_END = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"\0\0\0\0IEND\xaeB`\x82"}
_TAIL = 12
_CHUNK = 64
_UNREAD = "unread"


@dataclass(frozen=True, slots=True)
class Header:
    """What was found out about one image file.

    Attributes:
        width: pixels, of the upright picture; 0 if unknown.
        height: likewise.
        orientation: 1 to 8 as in EXIF.
        fingerprint: 32 hex digits, of the file's size and first 64 KB; "" if it was not read.
        problem: "" or why the image cannot be used: missing_file, empty_file, pointer_file,
            undecodable, truncated or too_many_pixels.
        detail: what is wrong, for people.
    """

    width: int = 0
    height: int = 0
    orientation: int = 1
    fingerprint: str = ""
    problem: str = ""
    detail: str = ""

    @property
    def turned(self) -> bool:
        """Whether width and height are exchanged in the file."""
        return self.orientation >= 5


def inspect(
    files: Files,
    paths: Sequence[str],
    sizes: Mapping[str, int],
    progress: Callable[[int, int], None] | None = None,
) -> list[Header]:
    """One header a path, in their order.

    Only the ends of a file are read, and all of it where they leave open whether it is whole.

    Args:
        files: where the images are.
        paths: of images; a path may come several times.
        sizes: bytes of the files that are there, by path, as `Files.listing` gives them.
        progress: told how many of how many are done.
    """
    found: list[Header] = []
    with ThreadPoolExecutor(files.reads_at_once) as pool:
        chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
        for headers in pool.map(lambda chunk: [_inspect(files, p, sizes) for p in chunk], chunks):
            found += headers
            if progress:
                progress(len(found), len(paths))
    # A network may have failed for a moment, and what is found here is kept.
    for place, header in enumerate(found):
        if header.problem == _UNREAD:
            again = _inspect(files, paths[place], sizes)
            unread = again.problem == _UNREAD
            found[place] = replace(again, problem="missing_file") if unread else again
    absent = [place for place, path in enumerate(paths) if path not in sizes]
    if absent:
        spellings = Spellings(sizes)
        for place in absent:
            found[place] = replace(found[place], detail=spellings.missing(paths[place]))
    return found


def _inspect(files: Files, path: str, sizes: Mapping[str, int]) -> Header:
    if path not in sizes:
        return Header(problem="missing_file")
    fingerprint = ""
    try:
        head, tail = files.ends(path, HEAD, _TAIL)
        fingerprint = blake2b(b"%d " % sizes[path] + head, digest_size=16).hexdigest()
        return _read(files, path, sizes[path], head, tail, fingerprint)
    except ImageError as error:
        return Header(fingerprint=fingerprint, problem=error.reason, detail=error.detail)
    except OSError as error:
        return Header(problem=_UNREAD, detail=f"{path} cannot be read: {first_line(error)}")


def _read(files: Files, path: str, size: int, head: bytes, tail: bytes, fingerprint: str) -> Header:
    whole = head if size <= HEAD else b""
    try:
        image = opened(head)
    except ImageError as error:
        # A header may be longer than what was read, as after a large thumbnail.
        if whole or error.reason in ("pointer_file", "empty_file", "too_many_pixels"):
            raise
        whole = files.read(path)
        image = opened(whole)
    way = orientation(image)
    width, height = image.size
    if not tail.endswith(_END.get(image.format or "", b"no such end")):
        decode(whole or files.read(path))
    if way >= 5 and image.format != "TIFF":
        width, height = height, width
    return Header(width, height, way, fingerprint)
