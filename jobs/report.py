"""Build a sweep's tables, figures and report anew from its run directory.

    python jobs/report.py runs/quickstart

Exit codes: 0 written; 2 the directory does not hold a measured sweep, and the message says what is
missing.
"""

import argparse
from pathlib import Path

import _path  # noqa: F401  makes mixlens importable
from mixlens.errors import exit_clearly


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="the sweep's directory, such as runs/quickstart")
    arguments = parser.parse_args()

    from mixlens.report import write_report  # matplotlib and pandas: not for --help

    report, _ = write_report(arguments.folder)
    print(report)


if __name__ == "__main__":
    exit_clearly(main)
