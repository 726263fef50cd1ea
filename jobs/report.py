"""Build the tables, figures and report of a sweep, or of one measured model, anew.

    python jobs/report.py runs/quickstart
    python jobs/report.py runs/measure_tiny/tiny-vllm-<digest>

Exit codes: 0 written; 2 the directory does not hold a measured sweep or model, and the message says
what is missing.
"""

import argparse
from pathlib import Path

import _path  # noqa: F401  makes mixlens importable
from mixlens.errors import exit_clearly


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="the directory, such as runs/quickstart")
    arguments = parser.parse_args()

    # matplotlib and pandas: not for --help
    if (arguments.folder / "measure.json").is_file():
        from mixlens.report.measured import report_model

        print(report_model(arguments.folder.absolute())[0])
    else:
        from mixlens.report import write_report

        print(write_report(arguments.folder)[0])


if __name__ == "__main__":
    exit_clearly(main)
