"""Where a data set's files are: a folder, a bucket, or any URL that pyarrow or fsspec reads."""

import posixpath
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import quote

from pyarrow import fs

from mixlens.errors import DataError, explain, first_line
from mixlens.sources.filesystems import (
    LOCAL_READS,
    REMOTE_READS,
    as_os_errors,
    check_answers,
    connect,
    is_local,
    is_web,
    list_files,
)

_KINDS = "a folder, s3://, gs://, abfs://, hdfs://, http(s):// or any other URL that fsspec reads"


@dataclass(frozen=True)
class Files:
    """The files below a root, which `open_files` gives.

    A path is relative to the root; one that leads elsewhere is a URL, or absolute.

    Attributes:
        root: an absolute path or a URL.
        is_local: whether it is a folder of this machine's file system.
    """

    root: str
    is_local: bool

    @property
    def reads_at_once(self) -> int:
        """How many files are best read at a time."""
        return LOCAL_READS if self.is_local else REMOTE_READS

    def read(self, path: str) -> bytes:
        """All bytes of a file.

        Raises:
            OSError: it cannot be read: `FileNotFoundError` if it is not there.
        """
        with as_os_errors(path):
            system, place = self._find(path)
            with system.open_input_stream(place) as file:
                return file.read()

    def require(self, path: str, where: str) -> bytes:
        """All bytes of a file that a person named in the field `where`.

        Raises:
            DataError: it is not there or cannot be read; the message names what is there instead.
        """
        try:
            return self.read(path)
        except OSError as error:
            problem = (
                f"there is no such file below {self.root}"
                if isinstance(error, FileNotFoundError)
                else f"cannot be read below {self.root} ({first_line(error)})"
            )
            raise DataError(explain(where, path, problem, self._nearby(path))) from error

    def ends(self, path: str, head: int, tail: int) -> tuple[bytes, bytes]:
        """The first `head` and the last `tail` bytes of a file; all of it if it has fewer.

        Raises:
            OSError: it cannot be read: `FileNotFoundError` if it is not there.
        """
        system, place = self._find(path)
        if is_web(place):  # servers need not send parts, and some do so wrongly
            whole = self.read(path)
            return whole[:head], whole[-tail:]
        with as_os_errors(path), system.open_input_file(place) as file:
            size = file.size()
            first = file.read_at(head, 0)
            if size <= head:
                return first, first[-tail:]
            return first, file.read_at(tail, max(size - tail, 0))

    def listing(self, folder: str = "", where: str = "images") -> dict[str, int]:
        """Bytes of every file in a folder and its sub-folders, by path, sorted by path.

        Links are followed, but not round in circles.

        Args:
            folder: relative to the root, or a URL, or absolute.
            where: the field that a person named it in, for messages.

        Raises:
            DataError: there is no such folder, or it cannot be listed.
        """
        folder = self._relative(folder)
        try:
            with as_os_errors(folder):
                system, place = self._find(folder)
                found = list_files(system, place)
                skip = len(place.rstrip("/")) + 1
                start = f"{folder}/" if folder else ""
                return {start + path[skip:]: size for path, size in sorted(found)}
        except OSError as error:
            raise DataError(
                explain(
                    where,
                    folder or ".",
                    f"there is no such folder below {self.root}"
                    if isinstance(error, FileNotFoundError)
                    else f"this folder of {self.root} cannot be listed ({first_line(error)})",
                    self._nearby(folder),
                )
            ) from error

    def inside(self, folder: str, file_name: str) -> str | None:
        """The path of a file as an annotation file names it, or None if it leads elsewhere.

        A name may go through sub-folders, and may be absolute or a URL that lies below the root.
        A link may lead anywhere: it is not the annotation file that made it.

        Args:
            folder: the folder of images.
            file_name: relative to the folder.
        """
        base, name = self._relative(folder), self._relative(file_name)
        if _is_whole(name):
            return None
        if _is_whole(file_name):
            path = name
        elif _is_whole(base):
            path = posixpath.normpath(name)
        else:
            path = posixpath.normpath(posixpath.join(base, name))
        if path in (".", "..") or path.startswith("../"):
            return None
        if _is_whole(base) and not _is_whole(file_name):
            path = f"{base}/{path}"
        return path

    def _find(self, path: str) -> tuple[fs.FileSystem, str]:
        if _is_whole(path):
            return connect(path)
        system, base = connect(self.root)
        name = quote(path) if is_web(base) else path
        return system, f"{base.rstrip('/')}/{name}" if name else base

    def _relative(self, path: str) -> str:
        """Relative to the root where it lies below, else as it is; without `.` and `//`."""
        if not _is_whole(path):
            clean = posixpath.normpath(path)
            return "" if clean == "." else clean
        home = self.root if "://" in path else connect(self.root)[1]
        if f"{path.rstrip('/')}/".startswith(f"{home.rstrip('/')}/"):
            return self._relative(path[len(home.rstrip("/")) :].strip("/"))
        return path.rstrip("/")

    def _nearby(self, path: str) -> str:
        """What the nearest folder above a path holds, to show which name would have been right."""
        if self.is_local and not _is_whole(path):
            for above in Path(self._find(path)[1]).parents:
                if above.is_dir():
                    names = sorted(entry.name for entry in islice(above.iterdir(), 1000))
                    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
                    return f"{above} holds: {shown or 'nothing'}."
        return "Give a path relative to the root of the data set, or a URL."


def open_files(root: str) -> Files:
    """The files below a folder or URL.

    Args:
        root: a folder, or a URL of a file system that pyarrow knows (s3, gs, abfs, hdfs ...) or
            else fsspec (memory, http ...). Credentials come from where these look for them.

    Raises:
        DataError: there is nothing, or a file instead of a folder, or no way to read it.
    """
    if "://" not in root:
        root = str(Path(root).expanduser().absolute())
    try:
        with as_os_errors(root):
            system, base = connect(root)
            if is_web(base):
                check_answers(base)
            # Below a web address there can be files without a folder.
            kind = fs.FileType.Directory if is_web(base) else system.get_file_info(base).type
    except OSError as error:
        raise DataError(
            explain("root", root, f"cannot be opened ({first_line(error)})", f"Give {_KINDS}.")
        ) from error
    if kind != fs.FileType.Directory:
        problem = "is a file" if kind == fs.FileType.File else "there is no such folder"
        raise DataError(
            explain("root", root, problem, "Give the folder that images and annotations are in.")
        )
    return Files(root, is_local(system))


def _is_whole(path: str) -> bool:
    return path.startswith("/") or "://" in path
