"""Write down which example a run trains on at every position, to compare runs example by example.

    python jobs/order.py runs/quickstart/trials/TRIAL/run.json order.parquet

The table has one row a position: position, step, component, index in the component, and for a
photograph the name of its file. It says what the run is to be trained on. Where the run has begun,
the steps that it did are compared with it, by what they were trained on.

Exit codes: 0 written; 2 the file is no run.json, or a step was trained on other examples, and the
message says which.
"""

import argparse
from pathlib import Path

import _path  # noqa: F401  makes mixlens importable
from mixlens.errors import SpecError, exit_clearly, first_line
from mixlens.spec import RunSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path, help="run.json of a trial")
    parser.add_argument("table", type=Path, help="the Parquet file to write")
    arguments = parser.parse_args()
    try:
        run = RunSpec.model_validate_json(arguments.run.read_text())
    except (OSError, ValueError) as error:
        text = first_line(error)
        raise SpecError(f"{arguments.run}: this is no run.json of a trial: {text}") from None

    from mixlens.mixture.manifest import write_manifest
    from mixlens.training.trained_on import check_trained_on

    write_manifest(run, arguments.table, run.training.steps)
    print(arguments.table)
    done = len(check_trained_on(run, arguments.run.parent))
    total = run.training.steps
    print(
        f"{done} of {total} steps were trained, each on the examples of this table"
        if done
        else f"none of the {total} steps was trained yet beside {arguments.run}"
    )


if __name__ == "__main__":
    exit_clearly(main)
