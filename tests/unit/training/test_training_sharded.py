"""At ZeRO stage 3 no worker ever holds the whole model, and uneven ranks do not wait for ever."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from training_cases import STEPS, losses

from mixlens.models import load_vlm


@pytest.fixture(params=[0, 1])
def found(root: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    return json.loads((root / f"found-{request.param}.json").read_text())


def test_no_rank_ever_holds_the_whole_model(root: Path, found: dict[str, Any]) -> None:
    model = load_vlm(str(root / "large")).model
    sizes = [parameter.numel() * 4 for parameter in model.parameters()]
    whole = sum(sizes)
    assert max(sizes) < whole / 25
    assert found["peak_whole"] >= found["whole"] == whole, "the meter misses parameters"
    # Its half, and what one module needs.
    assert math.isclose(found["split"], whole / 2, rel_tol=0.01)
    assert found["gathered"] == 0
    assert found["peak_split"] < whole / 2 + 2 * max(sizes)


def test_only_the_parameters_differ_from_an_unsharded_load(found: dict[str, Any]) -> None:
    assert found["buffers"]
    assert found["groups"]
    assert found["adapters"]


def test_ranks_with_different_rows_and_lengths_go_on(root: Path) -> None:
    """Stage 0 gathers no parameters, so its ranks meet only when a step ends."""
    expected = losses(root / "uneven-0")
    assert len(expected) == STEPS
    assert losses(root / "uneven-3") == pytest.approx(expected, abs=1e-5)
