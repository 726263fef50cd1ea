"""Train one run without Ray.

    python -m mixlens.training.alone RUN_JSON DIRECTORY
    torchrun --nproc-per-node 2 -m mixlens.training.alone RUN_JSON DIRECTORY

A second start continues from the latest checkpoint; a finished run is left as it is.
"""

import argparse
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist

from mixlens.design import read_run
from mixlens.errors import exit_clearly
from mixlens.lock import held
from mixlens.mixture.local import LocalStream
from mixlens.models import keep_freed_memory
from mixlens.spec import RunSpec
from mixlens.training.context import alone, from_torchrun
from mixlens.training.loop import train
from mixlens.training.records import finished_model
from mixlens.training.sharded import collate_of, load_trainable
from mixlens.training.zero import import_deepspeed


def train_alone(run: RunSpec, directory: Path) -> Path:
    """Train in this process, as one of torchrun's workers or the only one; returns the model."""
    if (model := finished_model(run, directory)) is not None:
        return model
    directory.mkdir(parents=True, exist_ok=True)
    import_deepspeed()
    context = (from_torchrun if "RANK" in os.environ else alone)(directory)
    vlm = load_trainable(run, context)
    stream = LocalStream(
        run, context.rank, context.world_size, collate_of(run, vlm), vlm.adapter.refuses
    )
    return train(run, context, vlm, stream)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mixlens.training.alone", description=__doc__)
    parser.add_argument("run", type=Path, help="a RunSpec as JSON, or the trial.json of a trial")
    parser.add_argument("directory", type=Path, help="where the run is kept")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    directory = arguments.directory.absolute()
    is_first = os.environ.get("RANK", "0") == "0"
    try:
        run = read_run(arguments.run)
        # The others of torchrun's workers wait for the first one, and end with it.
        with held(directory, sys.argv, print) if is_first else nullcontext():
            print(train_alone(run, directory))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    exit_clearly(main)
