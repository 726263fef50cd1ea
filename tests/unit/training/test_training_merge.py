"""Adapters merged into their base: the same logits, an ordinary checkpoint, clear refusals."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_cases import GLOBAL_BATCH, RandomStream, case_name, model_folder, run_of

from mixlens.errors import CheckpointError
from mixlens.models import load_vlm
from mixlens.training.context import FolderContext
from mixlens.training.merge import merge


def test_a_merged_model_is_an_ordinary_one_with_the_same_logits(root: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, AutoProcessor

    def logits(model: torch.nn.Module) -> torch.Tensor:
        with torch.no_grad():
            return model.eval()(**inputs).logits

    adapters = root / case_name(3, True) / "2-to-2" / "model"
    job = Path(__file__).parents[3] / "jobs" / "merge.py"
    merged = tmp_path / "some" / "merged"
    asked = [sys.executable, job, adapters, merged]
    done = subprocess.run(asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(merged)]
    assert [path.name for path in merged.parent.iterdir()] == ["merged"]

    base = load_vlm(str(root / "base"))
    context = FolderContext(0, 1, 0, torch.device("cpu"), root)
    stream = RandomStream(run_of(root / "base").training, context, base.adapter.image_token_id)
    inputs = stream.rows(1000, GLOBAL_BATCH).tensors
    del inputs["labels"]
    before = logits(base.model)
    expected = logits(PeftModel.from_pretrained(base.model, str(adapters)))
    ordinary = AutoModelForImageTextToText.from_pretrained(merged)
    assert not any("lora" in name for name, _ in ordinary.named_modules())
    assert ordinary.dtype == torch.float32
    found = logits(ordinary)
    assert (expected - before).abs().max() > 0.01
    assert (found - expected).abs().max() < 1e-5
    assert AutoProcessor.from_pretrained(merged).tokenizer.eos_token == "<|end|>"

    with pytest.raises(CheckpointError, match=r"TARGET.*exists"):
        merge(adapters, merged)


def test_a_full_checkpoint_is_not_merged(root: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no adapter_config\.json"):
        merge(root / "base", tmp_path / "merged")
    assert not any(tmp_path.iterdir())


def test_the_type_of_the_checkpoint_is_kept(root: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    base = load_vlm(str(root / "base"), torch.bfloat16)
    base.model.save_pretrained(tmp_path / "base")
    base.processor.save_pretrained(tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    model = get_peft_model(AutoModelForImageTextToText.from_pretrained(tmp_path / "base"), config)
    model.save_pretrained(tmp_path / "adapters")
    merged = AutoModelForImageTextToText.from_pretrained(
        merge(tmp_path / "adapters", tmp_path / "merged"), dtype="auto"
    )
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.bfloat16}


@pytest.mark.case
@pytest.mark.parametrize(("dtype", "size", "told"), [
    (torch.bfloat16, 1e-2, True), (torch.bfloat16, 10.0, False), (torch.float32, 1e-2, False),
])  # fmt: skip
def test_adapters_that_drown_in_the_type_of_the_weights_are_told(
    dtype: torch.dtype, size: float, told: bool, tmp_path: Path
) -> None:
    """The share of weights, of those that would move, which are the same before and after."""
    from peft import LoraConfig, get_peft_model

    model_folder(tmp_path)
    base = load_vlm(str(tmp_path / "base"), dtype)
    base.model.save_pretrained(tmp_path / "typed")
    base.processor.save_pretrained(tmp_path / "typed")
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    model = get_peft_model(load_vlm(str(tmp_path / "typed"), dtype).model, config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.mul_(size)
    model.save_pretrained(tmp_path / "adapters")
    heard: list[str] = []
    merged = merge(tmp_path / "adapters", tmp_path / "merged", heard.append)
    before, after = (
        {name: weight for name, weight in load_vlm(str(folder), dtype).model.named_parameters()
         if name.endswith("q_proj.weight")}
        for folder in (tmp_path / "typed", merged)
    )  # fmt: skip
    weights = sum(weight.numel() for weight in before.values())
    same = sum(int((weight == after[name]).sum()) for name, weight in before.items())
    assert bool(heard) == told == (same / weights >= 0.01)
    if told:
        assert f"{100 * same / weights:.0f} % of the weights" in heard[0]
        assert "bfloat16" in heard[0]
