"""Keep what libraries print out of sight, in a file."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def chatter_to(file: Path) -> Iterator[TextIO]:
    """Send everything this process prints, also from C and child processes, to `file`.

    Yields a stream to what standard output was before, for what a person should see.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    screen = os.fdopen(os.dup(saved[0]), "w", buffering=1)
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        yield screen
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, original in enumerate(saved, start=1):
            os.dup2(original, number)
            os.close(original)
        os.close(log)
        screen.close()
