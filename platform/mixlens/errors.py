"""The errors a person can cause, each with a message that says what would be right.

A job prints such an error as one message and exits with code 2. Everything else is a defect of
Mixlens and keeps its traceback. All of them survive pickling, because Ray carries them between
processes.
"""

import sys
from collections.abc import Callable


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


def first_line(error: Exception) -> str:
    """What an error of a library says, short enough for a message; its name if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def exit_clearly(main: Callable[[], None]) -> None:
    """Run `main`; print a `MixlensError` as a message and exit with code 2."""
    try:
        main()
    except MixlensError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on where this one ended", file=sys.stderr)
        sys.exit(130)
