"""`mixlens track RUN`: send to MLflow what it does not have of a run directory.

    mixlens track runs/quickstart
    mixlens track runs/measure_tiny

A job sends by itself and never waits for MLflow; this sends what could not be sent while it ran.
Exit codes: 0 everything is there; 1 MLflow does not take some of it, which is listed; 2 the folder
holds no run, or MLflow cannot be used, and the message says what is wrong.
"""

import argparse
import sys
from pathlib import Path

from mixlens.errors import exit_clearly


def main() -> None:
    """The console script."""
    exit_clearly(_main)


def _main() -> None:
    parser = argparse.ArgumentParser(prog="mixlens", description="Mixlens from the shell.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    track = commands.add_parser(
        "track",
        help="send to MLflow what it does not have of a run directory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    track.add_argument("run", type=Path, metavar="RUN", help="the directory, such as runs/mine")
    arguments = parser.parse_args()

    from mixlens.tracking.send import send_runs  # pandas and MLflow: not for --help

    refused = send_runs(arguments.run, lambda line: print(line, flush=True))
    for line in refused:
        print(f"error: not sent: {line}", file=sys.stderr)
    if refused:
        sys.exit(1)


if __name__ == "__main__":
    main()
