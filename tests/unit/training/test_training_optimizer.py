"""What is trained, at which rate, and what is not."""

import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from training_cases import model_folder, run_alone, run_of

from mixlens.errors import ResourceError, SpecError
from mixlens.models import load_vlm
from mixlens.spec import LearningRates, LoraSpec, TrainingSpec
from mixlens.training.lora import add_lora
from mixlens.training.objective import answer_loss_sum, before_answers, count_answers
from mixlens.training.optimizer import freeze, learning_rate_share, parameter_groups
from mixlens.training.zero import check_nvme, deepspeed_config


def training(**settings: object) -> TrainingSpec:
    return TrainingSpec.model_validate(
        {"steps": 10, "global_batch": 4, "micro_batch": 4} | settings
    )


def test_learning_rate_rises_linearly_then_follows_a_cosine() -> None:
    spec = training(warmup_steps=3, final_lr_share=0.1)
    shares = [learning_rate_share(step, spec) for step in range(10)]
    assert shares[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    for step in range(3, 10):
        expected = 0.1 + 0.9 * (1 + math.cos(math.pi * (step - 3) / 7)) / 2
        assert shares[step] == pytest.approx(expected)
    assert learning_rate_share(0, training()) == 1.0


def test_groups_split_towers_and_decay(tmp_path: Path) -> None:
    vlm = load_vlm(str(model_folder(tmp_path)))
    spec = training(
        learning_rates={"vision": 1e-5, "projector": 2e-5, "language": 3e-5}, weight_decay=0.3
    )
    groups = parameter_groups(vlm.model, vlm.adapter.towers(vlm.model), spec)
    names = {id(parameter): name for name, parameter in vlm.model.named_parameters()}
    listed = [names[id(parameter)] for group in groups for parameter in group["params"]]
    assert sorted(listed) == sorted(names.values())  # every parameter once, the tied one too
    for group in groups:
        assert (
            group["peak"] == {"vision": 1e-5, "projector": 2e-5, "language": 3e-5}[group["tower"]]
        )
        for parameter in group["params"]:
            name = names[id(parameter)]
            vector = name.endswith("bias") or "norm" in name or "layrnorm" in name
            embedding = (
                "embed_tokens" in name or "class_embedding" in name or "position_emb" in name
            )
            assert group["weight_decay"] == (0.0 if vector or embedding else 0.3), name


def test_loss_sum_is_that_of_transformers() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 7, 11), torch.randint(0, 11, (3, 7))
    labels[0, :4] = labels[2] = -100
    from transformers.loss.loss_utils import ForCausalLMLoss

    answers = count_answers(labels)
    assert int(answers) == 3 + 6
    expected = ForCausalLMLoss(logits, labels, 11, num_items_in_batch=answers)
    before = before_answers(labels)
    assert before.tolist() == sorted({3, 4, 5} | set(range(6)))
    loss = answer_loss_sum(logits[:, before], labels[:, before + 1])
    assert loss / answers == pytest.approx(float(expected), abs=1e-6)


def test_logits_are_needed_only_before_an_answer_of_any_row() -> None:
    labels = torch.full((2, 6), -100)
    labels[0, 2], labels[1, 4] = 7, 8
    assert before_answers(labels).tolist() == [1, 3]
    labels[0, 0] = 9  # nothing stands before it, so nothing predicts it
    assert before_answers(labels).tolist() == [1, 3]


def test_no_answers_in_a_micro_batch_give_no_loss_and_no_gradient() -> None:
    logits = torch.randn(2, 5, 7, requires_grad=True)
    loss = answer_loss_sum(logits[:, :-1], torch.full((2, 4), -100))
    loss.backward()
    assert float(loss) == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_cross_attention_learns_as_the_language_tower_unless_told_otherwise() -> None:
    assert LearningRates(language=3e-5).of("cross_attention") == 3e-5
    assert LearningRates(language=3e-5, cross_attention=0).of("cross_attention") == 0
    assert LearningRates(vision=2e-5).of("vision") == 2e-5


def test_a_model_without_the_named_towers_is_not_trained_on_nothing(tmp_path: Path) -> None:
    vlm = load_vlm(str(model_folder(tmp_path)))
    towers = vlm.adapter.towers(vlm.model)
    absent = LoraSpec(towers=("cross_attention",))
    with pytest.raises(SpecError, match=r"lora\.towers.*no such tower.*vision, projector, lang"):
        add_lora(vlm, absent, 0)
    rest = training(
        freeze=("vision", "projector", "language"), learning_rates={"cross_attention": 1e-3}
    )
    freeze(vlm.model, towers, rest.freeze)
    with pytest.raises(SpecError, match=r"freeze.*no other tower"):
        parameter_groups(vlm.model, towers, rest)


def test_offloading_is_told_to_deepspeed() -> None:
    spec = training(zero_stage=3, offload_optimizer="cpu", offload_parameters="nvme", nvme_path="n")
    found = deepspeed_config(spec, 1, "cuda")["zero_optimization"]
    assert found["offload_optimizer"] == {"device": "cpu", "pin_memory": True}
    assert found["offload_param"] == {"device": "nvme", "pin_memory": True, "nvme_path": "n"}
    assert not deepspeed_config(spec, 1, "cpu")["zero_optimization"]["offload_param"]["pin_memory"]
    for stage in (0, 1, 2, 3):
        plain = deepspeed_config(training(zero_stage=stage), 1, "cuda")["zero_optimization"]
        assert not any("offload" in key for key in plain)


def test_nvme_is_refused_where_it_cannot_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spec(folder: Path) -> TrainingSpec:
        return training(zero_stage=3, offload_optimizer="nvme", nvme_path=str(folder))

    with pytest.raises(ResourceError, match=r"nvme_path.*no such folder"):
        check_nvme(spec(tmp_path / "absent"))
    from deepspeed.ops.op_builder import AsyncIOBuilder

    monkeypatch.setattr(AsyncIOBuilder, "is_compatible", lambda *_, **__: False)
    with pytest.raises(ResourceError, match=r"offload_optimizer.*libaio"):
        check_nvme(spec(tmp_path))
    monkeypatch.setattr(AsyncIOBuilder, "is_compatible", lambda *_, **__: True)
    check_nvme(spec(tmp_path))


@pytest.mark.parametrize("stage", [1, 3])
def test_frozen_towers_do_not_move(tmp_path: Path, stage: int) -> None:
    base = model_folder(tmp_path)
    run_alone(run_of(base, stage, freeze=("vision", "language")), tmp_path / "run")
    before = load_file(base / "model.safetensors")
    after = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "multi_modal_projector" in name}


@pytest.mark.parametrize(
    ("tower", "part", "expected"),
    [
        ("vision", "vision_tower", {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}),
        ("projector", "multi_modal_projector", {"linear_1", "linear_2"}),
        ("language", "language_model",
         {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
    ],
)  # fmt: skip
def test_lora_adapts_the_linear_layers_of_its_towers_alone(
    tmp_path: Path, tower: str, part: str, expected: set[str]
) -> None:
    base = model_folder(tmp_path)
    lora = LoraSpec(rank=2, alpha=4, towers=(tower,))
    run_alone(run_of(base, 1).model_copy(
        update={"training": run_of(base, 1).training.model_copy(update={"lora": lora})}
    ), tmp_path / "run")  # fmt: skip
    weights = load_file(tmp_path / "run" / "model" / "adapter_model.safetensors")
    assert all(part in name for name in weights)
    layers = {name.split(".lora_")[0].rsplit(".", 1)[1] for name in weights}
    assert layers == expected
    # They start at zero, so that whatever is not has been trained.
    assert all(weight.any() for name, weight in weights.items() if "lora_B" in name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze": ["vision"], "lora": {}}, r"vision.*freeze and in lora\.towers"),
        ({"lora": {"towers": []}}, "names no tower"),
        ({"freeze": ["cross_attention"], "lora": {}}, r"cross_attention.*freeze and in lora"),
        ({"betas": [0.9, 1.0]}, "below 1"),
        ({"freeze": ["vision", "projector", "language"]}, r"give learning_rates\.cross_attention"),
        (
            {"freeze": ["vision", "projector", "language", "cross_attention"]},
            "names every tower, so nothing would be trained",
        ),
        ({"zero_stage": 2, "offload_parameters": "cpu"}, r"leaves the parameters whole.*to 3"),
        ({"zero_stage": 0, "offload_optimizer": "cpu"}, r"leaves the optimiser whole.*1, 2 or 3"),
        ({"zero_stage": 2, "offload_optimizer": "nvme", "nvme_path": "/n"}, r"cannot do.*to 3"),
        (
            {
                "zero_stage": 3,
                "offload_optimizer": "nvme",
                "nvme_path": "/n",
                "checkpoint_every": 5,
            },
            r"cannot hold.*above steps \(10\)",
        ),
        ({"zero_stage": 3, "offload_optimizer": "nvme"}, r"nvme_path is not given.*folder"),
        ({"zero_stage": 3, "offload_parameters": "nvme"}, r"nvme_path is not given.*folder"),
    ],
)
def test_contradictions_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        training(**settings)
