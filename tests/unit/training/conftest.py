"""Runs that several test modules look at."""

from pathlib import Path

import pytest
import torch
from sharded_cases import two_ranks
from training_cases import (
    CASES,
    CRASHED,
    MOVED,
    Case,
    continued,
    model_folder,
    run_alone,
    together,
)

from mixlens.models.tiny import build_tiny_vlm


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases, trained by one worker, by two, and across a crash in all combinations.

    `base` is their model, `large` one with many parameters of which each is small beside all.
    """
    root = tmp_path_factory.mktemp("cases")
    model_folder(root)
    build_tiny_vlm(root / "large", ["red", "circle"], seed=0, size="base")
    for stage, lora in CASES:
        case = Case(stage, lora)
        run, folder = case.run(root), root / case.name
        run_alone(run, folder / "1")
        run_alone(run, folder / "crash-1", CRASHED)
        run_alone(run, continued(folder / "crash-1", folder / "1-to-1"))
        continued(folder / "crash-1", folder / "1-to-2")
    for case in MOVED:
        if "1-to-2" in case.ways:
            crashed = root / case.name / "crash-1"
            run_alone(case.run(root), crashed, CRASHED)
            continued(crashed, root / case.name / "1-to-2")
    together(two_ranks, root)
    for case in [*(Case(*case) for case in CASES), *MOVED]:
        if "2-to-1" in case.ways:
            run_alone(case.run(root), root / case.name / "2-to-1")
    return root


@pytest.fixture(autouse=True)
def plain_linear(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Costs are those of torch's own product, which ZeRO-3 replaces for the rest of a process."""
    if "cost" in request.module.__name__:
        monkeypatch.setattr(torch.nn.functional, "linear", torch._C._nn.linear)
