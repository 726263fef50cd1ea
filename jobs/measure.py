"""Measure one model as it is: its tokens at every layer, what can be read from them, what is lost.

    python jobs/measure.py sweeps/measure_tiny.yaml [model=FOLDER_OR_HUB_ID] [key=value ...]
    ray job submit --address ADDRESS --working-dir . -- python jobs/measure.py FILE model=...

The file is a measure file, or a sweep file, whose base model is then measured. Exit codes: 0
measured; 2 something in the file, the machine or the model was wrong, and the message says what.
"""

import argparse
import sys
from pathlib import Path

import _path  # noqa: F401  makes mixlens importable
from mixlens.errors import MixlensError, exit_clearly
from mixlens.spec import load_measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("file", type=Path, help="a measure file or a sweep file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as model=FOLDER")
    arguments = parser.parse_intermixed_args()
    spec = load_measure(arguments.file, arguments.overrides)

    from mixlens.sweep.measure_run import run_measure  # after the file is known to be right

    try:
        run_measure(spec, ["python", *sys.argv])
    except MixlensError as error:
        raise MixlensError(f"{arguments.file}: {error}") from error


if __name__ == "__main__":
    exit_clearly(main)
