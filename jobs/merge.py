"""Merge a model that was trained with LoRA into an ordinary full checkpoint.

    python jobs/merge.py runs/mine/trials/<digest>/model merged-model

Exit codes: 0 written; 2 the folder holds no adapter, its base is not there, or the target exists,
and the message says which.
"""

import argparse
import sys
from pathlib import Path

import _path  # noqa: F401  makes mixlens importable
from mixlens.errors import exit_clearly


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model_folder", type=Path, help="a run's model folder, with adapters")
    parser.add_argument("target", type=Path, help="the folder to write, which must not exist")
    arguments = parser.parse_args()

    from mixlens.training.merge import merge  # torch: not for --help

    def tell(message: str) -> None:
        print(f"warning: {message}", file=sys.stderr)

    print(merge(arguments.model_folder.absolute(), arguments.target.absolute(), tell))


if __name__ == "__main__":
    exit_clearly(main)
