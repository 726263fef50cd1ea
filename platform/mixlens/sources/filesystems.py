"""File systems behind a root: how to connect to one, list it, and what its errors become."""

import os
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from mixlens.errors import first_line

CONNECT_TIMEOUT_S = 10.0
LOCAL_READS, REMOTE_READS = 4, 32
"""Files that are read at a time: more of those that each wait for a network."""


@lru_cache(maxsize=16)
def connect(root: str) -> tuple[fs.FileSystem, str]:
    """A file system and the path of `root` in it."""
    if "://" not in root:
        return fs.LocalFileSystem(), root
    try:
        return fs.FileSystem.from_uri(root)
    except pa.ArrowInvalid:  # a scheme that pyarrow does not know
        import fsspec

        system, base = fsspec.core.url_to_fs(root)
        return fs.PyFileSystem(fs.FSSpecHandler(system)), base


def is_web(place: str) -> bool:
    return place.startswith(("http://", "https://"))


def check_answers(url: str) -> None:
    """Knock at a web server: fsspec says of one that is not there that the file is not there.

    Raises:
        OSError: nothing answers.
    """
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    socket.create_connection((parts.hostname or "", port), timeout=CONNECT_TIMEOUT_S).close()


def is_local(system: fs.FileSystem) -> bool:
    return isinstance(system, fs.LocalFileSystem)


@contextmanager
def as_os_errors(path: str) -> Iterator[None]:
    """Whatever a file system raises becomes an `OSError`: each has errors of its own."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{path}: {first_line(error)}") from error


def list_files(system: fs.FileSystem, folder: str) -> Iterable[tuple[str, int]]:
    """Paths of the files in a folder and its sub-folders, and their sizes, bytes."""
    return _walk(folder) if is_local(system) else _list(system, folder)


def _walk(folder: str) -> Iterator[tuple[str, int]]:
    """Files of a local folder; names that are no text are passed over, as no JSON can name them."""
    top = Path(folder).stat()
    waiting = [(folder, frozenset([(top.st_dev, top.st_ino)]))]
    while waiting:
        above, passed = waiting.pop()
        with os.scandir(above) as entries:
            for entry in entries:
                try:
                    entry.name.encode()
                    status = entry.stat()
                    is_folder = entry.is_dir()
                except (OSError, UnicodeEncodeError):  # a link that leads nowhere
                    continue
                if not is_folder:
                    yield entry.path, status.st_size
                elif (itself := (status.st_dev, status.st_ino)) not in passed:
                    waiting.append((entry.path, passed | {itself}))


def _list(system: fs.FileSystem, folder: str) -> list[tuple[str, int]]:
    """Files of a remote folder. Web servers' listings have no sizes, so these are asked for."""
    listed = system.get_file_info(fs.FileSelector(folder, recursive=True))
    files = [info for info in listed if info.type == fs.FileType.File]
    with ThreadPoolExecutor(REMOTE_READS) as pool:
        sizes = pool.map(lambda info: _size(system, info), files)
        both = zip(files, sizes, strict=True)
        found = ((info.path, size) for info, size in both if size is not None)
        return [(unquote(path) if is_web(path) else path, size) for path, size in found]


def _size(system: fs.FileSystem, info: Any) -> int | None:
    """Of a file in a listing; None if it is not there after all."""
    try:
        size = info.size if info.size is not None else system.get_file_info(info.path).size
        if size is None:
            with system.open_input_stream(info.path) as file:
                return len(file.read())
        return size
    except FileNotFoundError:
        return None
