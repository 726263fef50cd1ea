"""What the shipped sweep files say they need, against the estimate for models of published size."""

import re
from pathlib import Path

import pytest
from published_shapes import write_shape

from mixlens.design import SweepSpec, asked_trials
from mixlens.errors import ResourceError
from mixlens.spec import RunSpec, load_spec
from mixlens.sweep.cost import estimate_cost

SWEEPS = Path(__file__).parents[3] / "sweeps"
FILES = {
    "qwen25_vl": ("qwen2_5_vl", 3.75),
    "one_24gb_gpu": ("qwen2_5_vl", 3.75),
    "molmo2_study": ("molmo2", 8.69),
    "llama32_vision_study": ("mllama", 10.67),
}


def runs_of(spec: SweepSpec) -> tuple[RunSpec, ...]:
    return tuple(trial.run for trial in asked_trials(spec))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("shapes")
    for family in {family for family, _ in FILES.values()}:
        write_shape(family, root / family)
    return {family: root / family for family, _ in FILES.values()}


@pytest.mark.parametrize("name", FILES)
def test_what_a_file_says_it_needs_is_what_the_estimate_says(name: str, shapes):
    family, billions = FILES[name]
    path = SWEEPS / f"{name}.yaml"
    spec = load_spec(SweepSpec, path, [f"model={shapes[family]}"])
    rows = dict(estimate_cost(runs_of(spec), len(runs_of(spec))))
    said = " ".join(line.lstrip("# ") for line in path.read_text().splitlines() if line[:1] == "#")
    memory = float(re.search(r"([\d.]+) GiB", said)[1])
    assert float(rows["memory a device"].split(" GiB")[0]) == pytest.approx(memory, rel=0.01)
    hours = float(re.search(r"([\d.]+) GPU hours of training for all 18 trials", said)[1])
    assert f": {hours:g}" in rows["GPU hours"] or float(
        re.search(r": ([\d.]+) GPU hours", rows["GPU hours"])[1]
    ) == pytest.approx(hours, rel=0.03)
    assert float(rows["parameters"].split()[0]) == pytest.approx(billions, rel=0.005)
    assert float(rows["padding"].split("%")[0]) < 10
    trained = spec.training.lora
    assert trained is not None
    assert (trained.rank, trained.alpha) == (16, 32)
    assert spec.training.global_batch == 32
    epochs = spec.training.steps * 32 / spec.components["complex"].size
    assert epochs == 3


def test_what_cannot_fit_is_refused_with_what_would_fit(shapes):
    changes = [
        f"model={shapes['qwen2_5_vl']}", "training.lora=null", "training.micro_batch=8",
        "training.activation_checkpointing=false", "resources.gpu_memory_gb=24",
    ]  # fmt: skip
    spec = load_spec(SweepSpec, SWEEPS / "qwen25_vl.yaml", changes)
    with pytest.raises(ResourceError, match=r"GiB a GPU and 24\.0 are there.*it fits with") as told:
        estimate_cost(runs_of(spec), 1)
    settings = re.findall(r"(training\.\w+|resources\.workers): ([\w.]+)", str(told.value))
    assert settings
    again = load_spec(
        SweepSpec, SWEEPS / "qwen25_vl.yaml", [*changes, *(f"{k}={v}" for k, v in settings)]
    )
    estimate_cost(runs_of(again), 1)


def test_half_a_gpu_has_half_of_its_memory(shapes):
    spec = load_spec(
        SweepSpec,
        SWEEPS / "one_24gb_gpu.yaml",
        [f"model={shapes['qwen2_5_vl']}", "resources.gpu_memory_gb=16"],
    )
    with pytest.raises(ResourceError, match=r"and 8\.0 are there"):
        estimate_cost(runs_of(spec), 1)


def test_without_masks_each_turn_has_its_image_anew(shapes):
    changes = [f"model={shapes['qwen2_5_vl']}"]

    def seen(*more: str) -> tuple[int, ...]:
        spec = load_spec(SweepSpec, SWEEPS / "qwen25_vl.yaml", [*changes, *more])
        told = dict(estimate_cost(runs_of(spec), 1))["tokens an example"]
        return tuple(map(int, re.findall(r"(\d+)(?: in the vision tower| visual)", told)))

    once, anew = seen(), seen("training.attention=flash_attention_2")
    turns = 7  # of a complex scene
    assert anew == tuple(turns * tokens for tokens in once)
