"""Keep what libraries print out of sight, in a file."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


@contextmanager
def chatter_to(file: Path) -> Iterator[TextIO]:
    """Send everything this process prints, also from C and child processes, to `file`.

    Yields a stream to what standard output was before, for what a person should see. What cannot
    be written, because the disk of `file` is full, is left out and ends nothing: the screen says
    at the end that it is missing.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    streams = sys.stdout, sys.stderr
    log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    screen = os.fdopen(os.dup(saved[0]), "w", buffering=1)
    kept = _Kept(1), _Kept(2)
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout, sys.stderr = (_text(raw) for raw in kept)
        yield screen
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, stream in enumerate(streams, start=1):  # libraries may hold on to them
            try:
                stream.flush()
            except OSError:  # or it would come to the screen later
                _drop(number)
                stream.flush()
        sys.stdout, sys.stderr = streams
        for number, original in enumerate(saved, start=1):
            os.dup2(original, number)
            os.close(original)
        if lost := sum(raw.lost for raw in kept):
            problem = kept[0].problem or kept[1].problem
            screen.write(f"{file} lacks {lost:,} bytes: {problem}\n")
        os.close(log)
        screen.close()


def _text(raw: "_Kept") -> TextIO:
    return io.TextIOWrapper(io.BufferedWriter(raw), line_buffering=True)


def _drop(number: int) -> None:
    """Have the file of this number swallow what is written to it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


class _Kept(io.RawIOBase):
    """Writes what it can to standard output or standard error, wherever that goes by then.

    Libraries that are imported meanwhile hold on to it.

    Attributes:
        lost: bytes that could not be written.
        problem: why not.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self.lost, self.problem = 0, ""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def write(self, content: Any) -> int:
        try:
            return os.write(self._number, content)
        except OSError as error:
            self.lost += len(content)
            self.problem = str(error)
            return len(content)
