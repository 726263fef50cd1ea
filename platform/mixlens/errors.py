"""The errors a person can cause, each with a message that says what would be right.

A job prints such an error as one message and exits with code 2. Everything else is a defect of
Mixlens and keeps its traceback. All of them survive pickling, because Ray carries them between
processes.
"""

import errno
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
# As libraries say it that pass on no error number.
_FULL_TEXTS = (
    "No space left on device",
    "Disk quota exceeded",
    "(os error 28)",
    "Local disk is full",
    "database or disk is full",
)
_ROOM = 1 << 20  # bytes; a disk with less is full
_sigterm_came = threading.Event()  # Ray raises KeyboardInterrupt in place of what a handler raises


class MixlensError(Exception):
    """Something that a person wrote, supplied or asked for cannot be used."""


class SpecError(MixlensError, ValueError):
    """A sweep file, or a `key=value` beside it, says something impossible."""


class DataError(MixlensError, ValueError):
    """Data that was supplied cannot be read or does not hold what it should."""


class CheckpointError(MixlensError):
    """A model folder or training checkpoint is missing, incomplete or of another kind."""


class ResourceError(MixlensError):
    """The machine, cluster, disk or server that was asked for is not there or is too small."""


def explain(where: str, value: object, problem: str, remedy: str) -> str:
    """One message with the four things a person needs: where, which value, what, what instead."""
    return f"{where}: got {value!r}: {problem}. {remedy}"


def first_line(error: BaseException) -> str:
    """What an error of a library says, short enough for a message; its name if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def damaged_file(
    file: Path,
    error: Exception,
    remedy: str = "Delete it; the command that made it makes it again.",
) -> DataError:
    """A file of ours that cannot be read: cut short by a full disk or a dying node, or changed."""
    problem = "this file is damaged, or of another version of Mixlens"
    got = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return DataError(explain(str(file), got, problem, remedy))


def read_record(file: Path, *keys: str) -> Any:
    """What one of our JSON files holds.

    Args:
        file: the file, which is there.
        keys: that it has to have.

    Raises:
        DataError: it is damaged.
    """
    try:
        content = json.loads(file.read_text())
        for key in keys:
            content[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged_file(file, error) from None
    return content


class Terminated(KeyboardInterrupt):
    """SIGTERM came: from `kill`, systemd, a container's stop or `ray job stop`.

    Whatever ends cleanly on Ctrl-C ends cleanly on this.
    """


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Raise `Terminated` in the main thread when SIGTERM comes, once; later ones change nothing.

    Libraries that put a handler of their own in its place need `end_on_sigterm` after them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    _sigterm_came.clear()
    end_on_sigterm()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_on_sigterm() -> None:
    """Have SIGTERM raise `Terminated`; only the main thread may ask for it."""
    signal.signal(signal.SIGTERM, _end)


def sigterm_came() -> bool:
    """Whether SIGTERM has come since `ending_on_sigterm` was entered."""
    return _sigterm_came.is_set()


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would break off the ending
    _sigterm_came.set()
    raise Terminated


def disk_full(error: BaseException, folder: Path) -> ResourceError | None:
    """What to tell of an error that comes from a full disk; None of any other.

    Args:
        error: as it was caught, with whatever it was raised from.
        folder: where most is written; named where the error names no file.
    """
    if (cause := _full_disk_cause(error)) is None:
        return None
    named = cause.filename if isinstance(cause, OSError) else None
    places = [Path(os.fsdecode(named)).absolute()] if isinstance(named, str | bytes) else []
    places += [folder, Path(tempfile.gettempdir()), Path("/dev/shm")]
    existing = [next(p for p in (place, *place.parents) if p.exists()) for place in places]
    free = [shutil.disk_usage(place).free for place in existing]
    place = next((p for p, room in zip(existing, free, strict=True) if room < _ROOM), existing[0])
    return ResourceError(
        explain(
            f"disk of {place}",
            f"{shutil.disk_usage(place).free / 1e9:.1f} GB free",
            f"it is full ({first_line(cause)[:200]})",
            "Make room there. Finished trials, measurements and the last checkpoint are whole: the "
            "same command goes on from them.",
        )
    )


def _full_disk_cause(error: BaseException) -> BaseException | None:
    """The error in a chain of causes that says that a disk is full."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or any(one is other for other in seen):
            continue
        seen.append(one)
        # Ray keeps what was raised elsewhere as `cause`.
        waiting += [one.__context__, one.__cause__, getattr(one, "cause", None)]
    for one in reversed(seen):  # the innermost says most
        if isinstance(one, OSError) and one.errno in _FULL_ERRNOS:
            return one
        if any(text in str(one) for text in _FULL_TEXTS):
            return one
    return None


def exit_clearly(main: Callable[[], None]) -> None:
    """Run `main`; print what ended it as one message.

    Exit codes: 2 for a `MixlensError` or a full disk, 130 for Ctrl-C, 143 for SIGTERM.
    """
    try:
        with ending_on_sigterm():
            main()
    except MixlensError as error:
        _exit(f"error: {error}", 2)
    except KeyboardInterrupt:
        code = 143 if sigterm_came() else 130
        _exit("stopped; the same command goes on where this one ended", code)
    except Exception as error:
        if (full := disk_full(error, Path.cwd())) is None:
            raise
        _exit(f"error: {full}", 2)


def _exit(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)
