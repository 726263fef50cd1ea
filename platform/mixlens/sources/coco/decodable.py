"""Held-out images are decoded once, before any model sees them: all models must see the same."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from mixlens.sources.coco.ledger import Ledger
from mixlens.sources.coco.pictures import Picture
from mixlens.sources.files import Files
from mixlens.sources.pixels import ImageError, decode


def decodable(
    pictures: Sequence[Picture],
    files: Files,
    ledger: Ledger,
    progress: Callable[[int, int], None],
) -> list[Picture]:
    """The images to train on, and those of the held-out ones whose pixels can be decoded.

    A training image that proves damaged is replaced when its turn comes; a held-out one cannot be,
    because results are paired by image.

    Args:
        pictures: of both splits, sound as far as their ends tell.
        files: where they are.
        ledger: gets those that are left out.
        progress: told how many of how many are done.
    """
    held_out = [picture for picture in pictures if picture.split == "held_out"]
    damaged = set()
    with ThreadPoolExecutor(files.reads_at_once) as pool:
        problems = pool.map(lambda picture: _problem(files, picture.path), held_out)
        for done, (picture, problem) in enumerate(zip(held_out, problems, strict=True), 1):
            if problem is not None:
                ledger.add("held_out", "image", problem.reason, image_id=picture.record.id,
                           file_name=picture.record.file_name, detail=problem.detail)  # fmt: skip
                damaged.add(id(picture))
            progress(done, len(held_out))
    return [picture for picture in pictures if id(picture) not in damaged]


def _problem(files: Files, path: str) -> ImageError | None:
    try:
        decode(files.read(path))
    except ImageError as error:
        return error
    except OSError as error:
        return ImageError("missing_file", f"{path} cannot be read: {error}")
    return None
