"""Run a sweep: many mixtures of simple and complex data, one fine-tuned model each, one answer.

    python jobs/sweep.py sweeps/quickstart.yaml [key=value ...] [--dry-run]
    ray job submit --address ADDRESS --working-dir . -- python jobs/sweep.py sweeps/quickstart.yaml

Exit codes: 0 the sweep is finished; 2 something in the file, the machine or a trial was wrong, and
the message says what.
"""

import argparse
import sys
from pathlib import Path

import _path  # noqa: F401  makes mixlens importable
from mixlens.errors import MixlensError, exit_clearly
from mixlens.spec import SweepSpec, load_spec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("file", type=Path, help="the sweep file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as seeds=[0,1,2]")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    arguments = parser.parse_intermixed_args()
    spec = load_spec(SweepSpec, arguments.file, arguments.overrides)

    from mixlens.sweep.run import run_sweep, show_plan  # after the file is known to be right

    try:
        if arguments.dry_run:
            show_plan(spec)
        else:
            run_sweep(spec, ["python", *sys.argv])
    except MixlensError as error:
        raise MixlensError(f"{arguments.file}: {error}") from error


if __name__ == "__main__":
    exit_clearly(main)
