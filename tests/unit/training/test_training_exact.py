"""The number of workers, ZeRO and interruptions change nothing: losses agree to 1e-5 in fp32."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from training_cases import (
    CASES,
    CRASHED,
    GLOBAL_BATCH,
    MOVED,
    STEPS,
    Case,
    RandomStream,
    case_name,
    continued,
    losses,
    run_alone,
    run_of,
)

from mixlens.models import load_vlm
from mixlens.training.context import FolderContext

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def reference(root: Path) -> tuple[list[float], Any]:
    """Losses and model of a plain PyTorch loop that sees the whole global batch at once."""
    run = run_of(root / "base")
    training, rates = run.training, run.training.learning_rates
    vlm = load_vlm(run.model)
    model = vlm.model.train()
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        rate = (
            rates.vision
            if "vision_tower" in name
            else rates.projector
            if "projector" in name
            else rates.language
        )
        decays = (parameter.ndim > 1 and "embed" not in name) or "patch_embedding" in name
        groups.setdefault((rate, 0.1 if decays else 0.0), []).append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": p, "weight_decay": decay} for (_, decay), p in groups.items()],
        betas=training.betas,
    )
    context = FolderContext(0, 1, 0, torch.device("cpu"), root)
    stream = RandomStream(training, context, vlm.adapter.image_token_id)
    found = []
    for step in range(STEPS):
        share = [1 / 3, 2 / 3, 1, 0.8535533906, 0.5, 0.1464466094][step]  # 2 up, 4 of a cosine
        for group, (rate, _) in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] = rate * share
        loss = model(**stream.rows(step * GLOBAL_BATCH, GLOBAL_BATCH).tensors).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
        assert norm > training.clip_norm, "this test wants clipping to be active"
        optimizer.step()
        optimizer.zero_grad()
        found.append(float(loss.detach()))
    return found, model


def logits(model: Any, root: Path) -> torch.Tensor:
    context = FolderContext(0, 1, 0, torch.device("cpu"), root)
    token = load_vlm(str(root / "base")).adapter.image_token_id
    tensors = RandomStream(run_of(root / "base").training, context, token).rows(1000, 4).tensors
    del tensors["labels"]
    with torch.no_grad():
        return model.eval()(**tensors).logits


@pytest.mark.parametrize("way", ["1", "2-to-2"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_losses_are_those_of_a_plain_loop(
    root: Path, reference: tuple[list[float], Any], stage: int, way: str
) -> None:
    expected, _ = reference
    assert expected[-1] < expected[0] - 0.1, "the reference does not learn"
    found = losses(root / case_name(stage, False) / way)
    assert found == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("way", ["1-to-1", "2-to-2", "1-to-2", "2-to-1"])
@pytest.mark.parametrize(("stage", "lora"), CASES)
def test_losses_are_those_of_one_uninterrupted_worker(
    root: Path, stage: int, lora: bool, way: str
) -> None:
    case = root / case_name(stage, lora)
    crashed = losses(case / "crash-1") if way[0] == "1" else losses(case / "crash-2")
    assert len(crashed) == CRASHED
    whole = losses(case / "1")
    assert len(whole) == STEPS
    assert losses(case / way) == pytest.approx(whole, abs=TOLERANCE)


@pytest.mark.parametrize(("case", "way"), [(case, way) for case in MOVED for way in case.ways])
def test_offloading_to_main_memory_does_not_matter(root: Path, case: Case, way: str) -> None:
    crashed = losses(root / case.name / f"crash-{way[0]}")
    whole = losses(root / case_name(0, case.lora) / "1")
    assert crashed == pytest.approx(whole[:CRASHED], abs=TOLERANCE)
    assert losses(root / case.name / way) == pytest.approx(whole, abs=TOLERANCE)
    kept, expected = (
        load_file(next((folder / "model").glob("*.safetensors")))
        for folder in (root / case.name / way, root / case_name(0, case.lora) / "1")
    )
    assert kept.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.allclose(kept[name], weight, atol=1e-3), name


@pytest.mark.parametrize("lora", [False, True])
def test_a_lost_optimizer_state_would_be_seen(root: Path, lora: bool, tmp_path: Path) -> None:
    """Moments set to zero change the losses by far more than the tolerance of the others."""
    from safetensors.torch import save_file

    directory = continued(root / case_name(1, lora) / "crash-1", tmp_path / "run")
    (shard,) = directory.glob("checkpoints/*/shard*.safetensors")
    pieces = load_file(shard)
    save_file(
        {key: piece * 0 if "|exp_avg" in key else piece for key, piece in pieces.items()}, shard
    )
    found = run_alone(run_of(root / "base", 1, lora), directory)
    whole = losses(root / case_name(1, lora) / "1")
    assert max(abs(a - b) for a, b in zip(found, whole, strict=True)) > 20 * TOLERANCE


@pytest.mark.parametrize("way", ["1", "2-to-1", "1-to-2"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_saved_model_loads_with_transformers(
    root: Path, reference: tuple[list[float], Any], stage: int, way: str
) -> None:
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    folder = root / case_name(stage, False) / way / "model"
    saved = logits(LlavaForConditionalGeneration.from_pretrained(folder), root)
    expected = logits(reference[1], root)
    before = logits(load_vlm(str(root / "base")).model, root)
    assert (expected - before).abs().max() > 0.1
    assert (saved - expected).abs().max() < 1e-3
    assert AutoProcessor.from_pretrained(folder).tokenizer.eos_token == "<|end|>"


@pytest.mark.parametrize("way", ["2-to-2", "2-to-1", "1-to-2"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_saved_adapters_load_with_peft(root: Path, stage: int, way: str) -> None:
    from peft import PeftConfig, PeftModel

    def adapted(folder: Path) -> torch.Tensor:
        config = PeftConfig.from_pretrained(str(folder))
        base = load_vlm(config.base_model_name_or_path).model
        return logits(PeftModel.from_pretrained(base, str(folder)), root)

    case = root / case_name(stage, True)
    expected, before = (
        adapted(case / "1" / "model"),
        logits(load_vlm(str(root / "base")).model, root),
    )
    assert (expected - before).abs().max() > 0.01
    assert (adapted(case / way / "model") - expected).abs().max() < 1e-3


@pytest.mark.parametrize("micro_batch", [1, 4, 8])
def test_accumulation_does_not_matter(
    root: Path, reference: tuple[list[float], Any], micro_batch: int, tmp_path: Path
) -> None:
    found = run_alone(run_of(root / "base", 1, micro_batch=micro_batch), tmp_path)
    assert found == pytest.approx(reference[0], abs=TOLERANCE)


def test_activation_checkpointing_does_not_matter(
    root: Path, reference: tuple[list[float], Any], tmp_path: Path
) -> None:
    found = run_alone(run_of(root / "base", 2, activation_checkpointing=True), tmp_path)
    assert found == pytest.approx(reference[0], abs=TOLERANCE)
