"""A model that ZeRO-3 spreads while it is loaded is accounted for like any other."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_folders import Tensors, copy_with
from training_cases import model_folder, run_of

from mixlens.errors import CheckpointError
from mixlens.training.alone import alone
from mixlens.training.sharded import load_trainable

PROJECTOR = "multi_modal_projector.linear_1.weight"


def without(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name != PROJECTOR}


def stranger(tensors: Tensors) -> Tensors:
    return {**tensors, "some.head": torch.ones(3)}


def wider(tensors: Tensors) -> Tensors:
    return {**tensors, PROJECTOR: torch.cat([tensors[PROJECTOR]] * 2)}


@pytest.mark.case
@pytest.mark.parametrize("stage", [0, 3])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without, r"1 tensors are missing \(model\.multi_modal_projector\.linear_1\.weight\)"),
        (stranger, r"1 are of no use to the model \(some\.head\)"),
        (wider, r"linear_1\.weight.*\[64, 32\].*\[32, 32\]"),
    ],
)
def test_what_does_not_fit_is_refused(
    change: Callable[[Tensors], Tensors], told: str, stage: int, tmp_path: Path
):
    folder = copy_with(model_folder(tmp_path), tmp_path / "odd", change)
    more = {"offload_parameters": "cpu", "offload_optimizer": "cpu"} if stage == 3 else {}
    run = run_of(folder, stage, **more)
    with pytest.raises(CheckpointError, match=told):
        load_trainable(run, alone(tmp_path / "run"))
