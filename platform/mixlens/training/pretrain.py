"""Make the built-in base model: random weights, then one stage of training after another."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from mixlens.models.tiny import build_tiny_vlm
from mixlens.spec import PretrainSpec
from mixlens.tasks import prompts_digest, vocabulary
from mixlens.training.alone import train_alone


def pretrain(spec: PretrainSpec, folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield each stage's number and finished model folder; done stages are not trained again.

    Each stage is an ordinary run of the training loop in this process.
    """
    model = folder / "random-weights"
    if not (model / "config.json").is_file():
        build_tiny_vlm(model, vocabulary(), seed=spec.seed)
    for number in range(len(spec.stages)):
        run = spec.run(number, str(model)).model_copy(update={"prompts_digest": prompts_digest()})
        model = train_alone(run, folder / f"stage-{number}-{run.digest()}")
        yield number, model


def install(model: Path, destination: Path) -> None:
    """Put the finished model where `builtin:tiny-vllm` finds it, without training leftovers."""
    if destination.exists():
        shutil.rmtree(destination)
    shutil.copytree(model, destination)
