"""What is part of a run's identity, and what is not."""

import subprocess
import sys

import pytest

from mixlens.design import SweepSpec, asked_trials
from mixlens.spec import RunSpec, held_out_of, transfer_of

SWEEP = SweepSpec.model_validate(
    {
        "name": "small",
        "components": {"a": {"tasks": {"coarse": 1}}, "b": {"tasks": {"relational": 1}}},
        "design": {
            "kind": "ratio",
            "high": {"b": 1.0},
            "low": {"a": 1.0},
            "ratios": [0.0, 0.25, 1.0],
        },
        "seeds": [0, 1],
        "training": {"steps": 2, "global_batch": 4, "micro_batch": 2},
        "evaluation": {"component": "b", "examples": 8},
    }
)
RUN = asked_trials(SWEEP)[2].run


def changed(**values: object) -> RunSpec:
    return RunSpec.model_validate({**RUN.model_dump(), **values})


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 7},
        {"weights": {"a": 0.5, "b": 0.5}},
        {"model": "other/model"},
        {"model_fingerprint": "0123"},
        {"prompts_digest": "0123"},
        {"training": {**RUN.training.model_dump(), "micro_batch": 1}},
        {"training": {**RUN.training.model_dump(), "weight_decay": 0.5}},
        {"training": {**RUN.training.model_dump(), "learning_rates": {"cross_attention": 1e-3}}},
    ],
)
def test_what_changes_a_result_changes_the_digest(values: dict[str, object]):
    assert changed(**values).digest() != RUN.digest()


@pytest.mark.parametrize(
    "values",
    [
        {"components": {**RUN.model_dump()["components"], "never": {"tasks": {"count": 1}}}},
        {"resources": {"workers": 2, "max_failures": 9}},
        {"training": {**RUN.training.model_dump(), "checkpoint_every": 1}},
        {"training": {**RUN.training.model_dump(), "zero_stage": 3}},
        {"training": {**RUN.training.model_dump(), "activation_checkpointing": True}},
        {"training": {**RUN.training.model_dump(), "offload_optimizer": "cpu"}},
        {
            "training": {
                **RUN.training.model_dump(),
                "zero_stage": 3,
                "offload_parameters": "nvme",
                "nvme_path": "/nvme",
            }
        },
        {"training": {**RUN.training.model_dump(), "attention": "flash_attention_2"}},
    ],
)
def test_what_changes_no_result_leaves_the_digest(values: dict[str, object]):
    assert changed(**values).digest() == RUN.digest()


def test_digest_survives_json_and_another_process():
    script = (
        "import sys; from mixlens.spec import RunSpec;"
        "print(RunSpec.model_validate_json(sys.stdin.read()).digest())"
    )
    there = subprocess.run(
        [sys.executable, "-c", script], input=RUN.model_dump_json(), capture_output=True, text=True
    )
    assert there.stdout.strip() == RUN.digest()


def test_other_images_make_neither_another_base_nor_other_trials():
    evaluation = {**SWEEP.evaluation.model_dump(), "examples": 9}
    other = SweepSpec.model_validate({**SWEEP.model_dump(), "evaluation": evaluation})
    assert held_out_of(other).digest() != held_out_of(SWEEP).digest()
    assert other.base_digest() == SWEEP.base_digest()
    assert asked_trials(other)[2].run.digest() == RUN.digest()


def test_specs_need_neither_torch_nor_ray():
    script = (
        "import sys; import mixlens.design;"
        "print([name for name in ('torch', 'ray', 'transformers') if name in sys.modules])"
    )
    there = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert there.stdout.strip() == "[]"


def test_other_images_to_compare_with_are_as_many_of_the_other_component():
    assert transfer_of(SWEEP) is None
    evaluation = {**SWEEP.evaluation.model_dump(), "transfer": "a"}
    compared = SweepSpec.model_validate({**SWEEP.model_dump(), "evaluation": evaluation})
    own, other = held_out_of(compared), transfer_of(compared)
    assert other is not None
    assert (own.name, other.name, other.examples) == ("b", "a", 8)
    assert own == held_out_of(SWEEP)
