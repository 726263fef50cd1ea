"""File names as files of annotations have them: which file each means, or why it means none."""

import posixpath
import unicodedata
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

_SHOWN = 200  # letters of a name


def matched(paths: Sequence[str], listed: Iterable[str]) -> list[str]:
    """The paths as they are listed, where only their accents are written in another way.

    A letter with an accent is one sign or two, and file systems, archives and labelling tools
    exchange one spelling for the other. A path stays as it is where no file or several match.

    Args:
        paths: of images.
        listed: paths of the files that are there.
    """
    there = set(listed)
    if there.issuperset(paths):
        return list(paths)
    spellings = Spellings(there)
    return [path if path in there else spellings.only(path) or path for path in paths]


def outside(file_name: str, root: str) -> str:
    """Why a name leads outside the root, and what to do about it."""
    if "://" in file_name:
        problem = f"is a URL that does not lie below {root}"
        remedy = "fetch the images and write their names relative to their folder"
    elif file_name.startswith("/"):
        problem = f"begins at the top of the file system and does not lie below {root}"
        remedy = "write it without the / at its beginning, relative to the folder of images"
    else:
        problem = f"leads out of {root}"
        remedy = "set root to a folder that holds the images as well as the annotations"
    return f"{file_name[:_SHOWN]!r} {problem}; {remedy}"


class Spellings:
    """The files that are there by other ways to write their names."""

    def __init__(self, listed: Iterable[str]) -> None:
        self._composed: dict[str, list[str]] = {}
        self._folded: dict[str, list[str]] = {}
        self._named: dict[str, list[str]] = {}
        for path in listed:
            self._composed.setdefault(_composed(path), []).append(path)
            self._folded.setdefault(_folded(path), []).append(path)
            self._named.setdefault(_folded(posixpath.basename(path)), []).append(path)

    def only(self, path: str) -> str | None:
        """The one file whose name is this, however its accents are written."""
        found = self._composed.get(_composed(path), [])
        return found[0] if len(found) == 1 else None

    def missing(self, path: str) -> str:
        """Why there is no such file, as far as those that are there tell, and what to do."""
        problem = f"there is no file {path[:_SHOWN]}"
        alike = self._composed.get(_composed(path), [])
        if len(alike) > 1:
            names = " and ".join(map(ascii, alike))
            return f"{problem}; {names} differ from it in how accents are written: keep one of them"
        if "\\" in path:
            return f"{problem}; its name has \\ where folders are separated: write / in its place"
        if (plain := self.only(unquote(path))) and "%" in path:
            return f"{problem}; it is written as in a URL and the file is {plain}: write that name"
        if found := self._folded.get(_folded(path)):
            return f"{problem}; there is {found[0]}: write capital letters as in that name"
        folders = path.split("/")
        for start in range(1, len(folders)):
            if found_at := self.only("/".join(folders[start:])):
                twice = "/".join(folders[:start])
                return (
                    f"{problem}; there is {found_at}: names begin with the folder already, so "
                    f"leave {twice} out of `images`"
                )
        if len(same := self._named.get(_folded(folders[-1]), [])) == 1:
            return f"{problem}; there is {same[0]}: correct `images` or the folder in the names"
        return problem


def _composed(path: str) -> str:
    return unicodedata.normalize("NFC", path)


def _folded(path: str) -> str:
    return _composed(path).casefold()
