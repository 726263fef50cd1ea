"""Answers by vLLM through Ray Data's own stages: of what runs only vLLM itself is not real."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from mixlens.errors import ResourceError
from mixlens.evaluation import engine
from mixlens.evaluation.answers import answer
from mixlens.evaluation.serving import engine_config
from mixlens.measurement import Asked, Measurement, Subject, load, measure
from mixlens.measurement.measure import held_out_examples
from mixlens.measurement.pool import MeasurementPool
from mixlens.measurement.request import Answers
from mixlens.models import load_vlm
from mixlens.models.tiny import build_tiny_vlm
from mixlens.spec import HeldOut, LoraSpec, ResourceSpec, SceneComponent, SceneSpec
from mixlens.tasks import vocabulary
from mixlens.training.lora import add_lora

pytestmark = pytest.mark.ray

FAKE = Path(__file__).parents[1] / "fake_vllm"
IMAGES = 10
SMALL = ResourceSpec(cpus_per_actor=0.5, gpus_per_actor=1.0, cpus_per_render=0.25)
HELD_OUT = HeldOut(
    name="scenes",
    component=SceneComponent(
        scene=SceneSpec(image_size=64, objects=(2, 4)), tasks={"coarse": 2, "scene_graph": 1}
    ),
    examples=IMAGES,
)
ASKED = Asked(Answers(engine="vllm", max_new_tokens=8))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_vlm(folder, vocabulary(), seed=4, size="test")
    vlm = load_vlm(str(folder))
    with torch.no_grad():  # larger weights: answers that depend on image and question
        for parameter in vlm.model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    vlm.model.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def no_gpus(monkeypatch):
    """The engine without GPUs, which are not there, and with a vLLM that does not need them."""

    def without(served, resources):
        config = engine_config(served, resources)
        assert config["placement_group_config"]["bundles"][0].pop("GPU") == 1
        return config | {"runtime_env": {"env_vars": {"PYTHONPATH": str(FAKE)}}}

    monkeypatch.setattr(engine, "engine_config", without)


@pytest.fixture(scope="module")
def pool(ray_local):
    pool = MeasurementPool(SMALL.model_copy(update={"gpus_per_actor": 0.0}))
    pool.resources = SMALL
    yield pool
    pool.close()


def answers_in(measurement: Measurement):
    return pq.read_table(measurement.part(ASKED.answers) / "examples.parquet")


def own_table(model: str):
    return answer(load_vlm(model), held_out_examples(HELD_OUT, range(IMAGES)), 64, 8)


def test_the_table_is_that_of_our_own_loop(pool, model, no_gpus, tmp_path):
    told = []
    measurement = Measurement(tmp_path, Subject("model", model, "0123"), HELD_OUT, ASKED)
    measure(pool, measurement, 4, lambda *step: told.append(step))
    table, own = answers_in(measurement), own_table(model)
    assert table.equals(own)
    assert len(set(own["response"].to_pylist())) > len(own) / 4  # mixing rows up would show
    assert not (measurement.folder / "asked").exists()
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages[:4] == ["questions", "vllm", "scores", "first look"]
    assert [step for step in told if step[0] == "vllm"][-1] == ("vllm", len(own), len(own))
    assert load(measurement).throughput["answers_per_s"] > 0


def test_adapters_are_put_on_the_base(pool, model, no_gpus, tmp_path):
    vlm = load_vlm(model)
    tuned = add_lora(vlm, LoraSpec(rank=2, towers=("language",)), 0)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.5)
    folder = str(tmp_path / "adapters")
    tuned.save_pretrained(folder)
    measurement = Measurement(tmp_path, Subject("tuned", folder, "4567"), HELD_OUT, ASKED)
    measure(pool, measurement, 4)
    table, own = answers_in(measurement), own_table(folder)
    assert table.equals(own)
    assert not own["response"].equals(own_table(model)["response"])


def test_an_engine_that_cannot_start_is_one_message(pool, model, no_gpus, tmp_path):
    broken = tmp_path / "broken"
    broken.symlink_to(model)
    vlm = load_vlm(model)
    table, served = engine_questions(vlm)
    pq.write_table(table, tmp_path / "asked.parquet")
    wrong = type(served)(str(broken), None, served.ends, served.longest)
    with pytest.raises(ResourceError, match="ValueError: the architecture of this model") as error:
        engine.ask_vllm([tmp_path / "asked.parquet"], wrong, SMALL)
    assert "Traceback" not in str(error.value)
    assert "\n" not in str(error.value)


def engine_questions(vlm):
    from mixlens.evaluation.serving import question_rows

    return question_rows(vlm, held_out_examples(HELD_OUT, range(2)), 0, 8)
