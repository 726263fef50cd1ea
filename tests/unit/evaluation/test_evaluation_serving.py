"""What vLLM would be given: held against the model's own processor, Ray's classes and peft."""

import io
import sys
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest
import tiny_families
import torch
from PIL import Image
from ray.data.llm import vLLMEngineProcessorConfig
from ray.llm._internal.batch.stages import vLLMEngineStage
from ray.llm._internal.batch.stages.vllm_engine_stage import vLLMOutputData

from mixlens.design import SweepSpec
from mixlens.errors import CheckpointError, ResourceError
from mixlens.evaluation import serving
from mixlens.evaluation.answers import answer_limits, asks_of, table_of
from mixlens.evaluation.generate import end_tokens, say
from mixlens.evaluation.serving import (
    QUESTIONS,
    Served,
    check_engine,
    engine_config,
    engine_row,
    picture,
    question_rows,
    requests_of,
    said_row,
    served_lora,
)
from mixlens.models import VLM, load_vlm
from mixlens.sources import open_source
from mixlens.spec import LoraSpec, MeasureSpec, ResourceSpec, SceneComponent, SceneSpec
from mixlens.training.lora import add_lora

COMPONENT = SceneComponent(
    scene=SceneSpec(image_size=64, objects=(2, 4)), tasks={"coarse": 2, "scene_graph": 1}
)
SERVED = Served("some/model", None, (7, 9), 333)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folder of a tiny model of a family, made when it is first asked for."""
    made: dict[str, str] = {}

    def folder(family: str) -> str:
        if family not in made:
            path = tmp_path_factory.mktemp(family)
            tiny_families.build(family, path)
            made[family] = str(path)
        return made[family]

    return folder


@pytest.fixture(scope="module")
def examples():
    source = open_source("scenes", COMPONENT)
    return [source.example(index) for index in range(3)]


@pytest.fixture(scope="module")
def llava(folders) -> VLM:
    return load_vlm(folders("llava"))


def requests(table) -> list[dict]:
    return [request for row in table.to_pylist() for request in requests_of(row)]


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "gemma3"])
def test_prompts_are_those_of_the_processor_before_its_visual_tokens(family, folders, examples):
    vlm = load_vlm(folders(family))
    table, served = question_rows(vlm, examples, 0, 20)
    asks = asks_of(vlm, examples, 20)
    token = vlm.adapter.image_token_id
    lengths = []
    for request, ask in zip(requests(table), asks, strict=True):
        image = examples[ask.place].image
        batch = vlm.adapter.question_batch([image], [ask.turn.question])
        ids = batch["input_ids"][0].tolist()
        lengths.append(len(ids) + ask.limit)
        if family == "gemma3":  # it writes other line breaks around its visual tokens
            content = [{"type": "image"}, {"type": "text", "text": ask.turn.question}]
            text = vlm.processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True
            )
            ids = vlm.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
            assert request["asked"].count(vlm.processor.tokenizer.bos_token_id) == 1
        else:
            runs = [(each, list(run)) for each, run in groupby(ids)]
            ids = [i for each, run in runs for i in ([each] if each == token else run)]
        assert request["asked"] == ids
    assert served.longest == max(lengths)


def test_questions_are_all_those_of_the_table_with_their_limits_and_images(llava, examples):
    table, served = question_rows(llava, examples, 40, 20)
    assert table.schema == QUESTIONS
    asked = requests(table)
    turns = [turn for example in examples for turn in example.turns]
    assert [request["number"] for request in asked] == list(range(len(turns)))
    assert {request["unit"] for request in asked} == {40}
    assert [request["limit"] for request in asked] == answer_limits(llava, turns, 20)
    assert len({request["limit"] for request in asked}) > 1
    owners = [example for example in examples for _ in example.turns]
    for request, example, turn in zip(asked, owners, turns, strict=True):
        assert turn.question in llava.processor.tokenizer.decode(request["asked"])
        shown = engine_row(request, served)["multimodal_data"]["image"]
        assert (shown.mode, np.asarray(shown).tolist()) == ("RGB", example.image.tolist())
    assert (served.model, served.lora) == (llava.path, None)
    assert list(served.ends) == end_tokens(llava)


def test_a_photograph_is_squeezed_as_our_adapter_does_it(llava, examples):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 90, 3), np.uint8)
    ours = llava.adapter.image_batch([pixels])["pixel_values"]
    shown = picture(llava, pixels)
    assert shown.shape[0] == shown.shape[1]
    # The processor alone, which would crop the photograph.
    alone = llava.processor.image_processor
    assert torch.equal(alone(shown, return_tensors="pt")["pixel_values"], ours)
    assert not torch.equal(alone(pixels, return_tensors="pt")["pixel_values"], ours)
    table, _ = question_rows(llava, [replace(examples[0], image=pixels)], 0, 20)
    stored = Image.open(io.BytesIO(table["image"][0].as_py()))
    assert np.array_equal(np.asarray(stored), shown)


def test_the_columns_are_those_of_ray_s_stage(llava, examples):
    table, served = question_rows(llava, examples, 0, 20)
    stage = vLLMEngineStage(
        fn_constructor_kwargs={"engine_kwargs": {}}, map_batches_kwargs={"accelerator_type": None}
    )
    required, optional = stage.get_required_input_keys(), stage.get_optional_input_keys()
    request = requests(table)[0]
    assert not request.keys() & (required.keys() | optional.keys())  # they reach the stage too
    row = engine_row(request, served)
    assert required.keys() <= row.keys() <= required.keys() | optional.keys()
    assert row["sampling_params"] == {
        "temperature": 0.0, "max_tokens": 12, "stop_token_ids": list(served.ends),
        "ignore_eos": True, "detokenize": False,
    }  # fmt: skip
    assert "model" not in row  # it would ask for adapters
    with_lora = engine_row(requests(table)[0], replace(served, lora="/adapters"))
    assert with_lora.keys() - row.keys() == {"model"}
    assert with_lora["model"] == "/adapters"
    assert "model" in optional


def test_the_table_is_made_of_the_tokens_that_come_back(llava, examples):
    asks = asks_of(llava, examples, 6)
    said = say(
        llava,
        [example.image for example in examples],
        [ask.turn.question for ask in asks],
        [ask.place for ask in asks],
        [ask.limit for ask in asks],
    )
    said[0] = [*said[0][:2], end_tokens(llava)[0]]
    came = []
    for number, tokens in enumerate(said):
        told = vLLMOutputData(prompt="", num_input_tokens=3, generated_tokens=tokens).model_dump()
        row = {"unit": 0, "number": number, "time_taken_llm": 0.5, **told}
        came.append(said_row(row))
    assert [row["tokens"] for row in came] == said
    assert {(row["unit"], row["seconds"]) for row in came} == {(0, 0.5)}
    table = table_of(llava, examples, asks, [row["tokens"] for row in came])
    assert table["finished"].to_pylist()[0] == 1
    text = llava.processor.tokenizer.decode(said[0][:2], skip_special_tokens=True).strip()
    assert table["response"].to_pylist()[0] == text
    assert table["question"].to_pylist() == [ask.turn.question for ask in asks]


@pytest.mark.parametrize(
    ("gpus", "split", "backend", "share"),
    [(1, 1, "uni", 0.9), (0.5, 1, "uni", 0.45), (4, 4, "mp", 0.9)],
)
def test_an_engine_takes_what_an_actor_takes(gpus, split, backend, share):
    resources = ResourceSpec(actors=3, cpus_per_actor=2, gpus_per_actor=gpus)
    config = vLLMEngineProcessorConfig(**engine_config(SERVED, resources))
    assert config.engine_kwargs == {
        "dtype": "bfloat16", "max_model_len": 333, "gpu_memory_utilization": share,
        "tensor_parallel_size": split, "distributed_executor_backend": backend,
        "limit_mm_per_prompt": {"image": 1, "video": 0}, "enable_prefix_caching": True,
        "trust_remote_code": False, "seed": 0, "task_type": "generate",
    }  # fmt: skip
    assert config.model_source == "some/model"
    assert config.get_concurrency() == {"min_size": 1, "max_size": 3}
    # What Ray makes of it: the actor itself holds the GPUs, and no placement group does.
    stage = vLLMEngineStage(
        fn_constructor_kwargs={
            "engine_kwargs": config.engine_kwargs,
            "placement_group_config": config.placement_group_config,
        },
        map_batches_kwargs={"accelerator_type": None},
    )
    asked = stage.map_batches_kwargs
    assert (asked["num_gpus"], asked["num_cpus"]) == (gpus, 2)
    assert "ray_remote_args_fn" not in asked
    stages = ("prepare_multimodal", "chat_template", "tokenize", "detokenize")
    assert not any(getattr(config, f"{name}_stage") for name in stages)
    assert not config.should_continue_on_error  # a question without an answer is not left out


def test_engines_may_have_a_python_of_their_own(monkeypatch):
    monkeypatch.delenv(serving.PYTHON, raising=False)
    assert engine_config(SERVED, ResourceSpec(gpus_per_actor=1))["runtime_env"] is None
    monkeypatch.setenv(serving.PYTHON, "/opt/vllm/bin/python")
    config = engine_config(SERVED, ResourceSpec(gpus_per_actor=1))
    assert config["runtime_env"] == {"py_executable": "/opt/vllm/bin/python"}


def adapters(llava_folder, folder, **lora):
    vlm = load_vlm(llava_folder)
    add_lora(vlm, LoraSpec(**lora), 0).save_pretrained(folder)
    return str(folder)


def test_adapters_of_the_language_model_go_over_as_they_are(folders, tmp_path, examples):
    folder = adapters(folders("llava"), tmp_path / "a", rank=20, towers=("language",))
    assert served_lora(folder) == folder
    assert served_lora(folders("llava")) is None
    vlm = load_vlm(folder)
    _, served = question_rows(vlm, examples, 0, 20)
    assert (served.model, served.lora) == (folders("llava"), folder)
    config = engine_config(served, ResourceSpec(gpus_per_actor=1))
    kwargs = vLLMEngineProcessorConfig(**config).engine_kwargs
    assert kwargs["enable_lora"] is True
    assert (kwargs["max_loras"], kwargs["max_lora_rank"]) == (1, 32)


@pytest.mark.parametrize("tower", ["vision", "projector"])
def test_other_adapters_are_refused_with_the_way_out(tower, folders, tmp_path):
    folder = adapters(folders("llava"), tmp_path / "a", rank=2, towers=("language", tower))
    names = {"vision": "model.vision_tower.", "projector": "model.multi_modal_projector."}
    with pytest.raises(CheckpointError, match=names[tower]) as error:
        served_lora(folder)
    assert "`mixlens merge`" in str(error.value)
    folder = adapters(folders("llava"), tmp_path / "b", rank=513, towers=("language",))
    with pytest.raises(CheckpointError, match=r"rank 513, and vLLM takes 512"):
        served_lora(folder)


def test_adapters_with_what_vllm_would_pass_over_are_refused(folders, tmp_path):
    folder = adapters(folders("llava"), tmp_path / "a", rank=2, towers=("language",))
    file = tmp_path / "a" / "adapter_config.json"
    file.write_text(file.read_text().replace('"rank_pattern": {}', '"rank_pattern": {"q": 4}'))
    with pytest.raises(
        CheckpointError, match=r"rank_pattern, which vLLM does not.*`mixlens merge`"
    ):
        served_lora(folder)


def spec(model: str, gpus: float = 1.0, engine: str = "vllm") -> MeasureSpec:
    return MeasureSpec.model_validate(
        {
            "name": "m",
            "model": model,
            "components": {"a": {"tasks": {"coarse": 1}}},
            "evaluation": {"component": "a", "examples": 8, "engine": engine},
            "resources": {"gpus_per_actor": gpus},
        }
    )


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(serving, "_has_vllm", lambda: True)


def test_vllm_is_refused_where_it_is_not(folders, monkeypatch, tmp_path):
    monkeypatch.delenv(serving.PYTHON, raising=False)
    check_engine(spec("no/model", 0, "transformers"))
    with pytest.raises(ResourceError, match=r"evaluation\.engine.*Install it in the image"):
        check_engine(spec(folders("llava")))
    fake = tmp_path / "vllm"
    fake.mkdir()
    (fake / "__init__.py").write_text("raise SystemExit  # never imported for this\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    check_engine(spec(folders("llava")))
    # Where engines have a Python of their own, that one counts.
    monkeypatch.setenv(serving.PYTHON, "/no/such/python")
    with pytest.raises(ResourceError, match="MIXLENS_VLLM_PYTHON"):
        check_engine(spec(folders("llava")))
    monkeypatch.setenv(serving.PYTHON, sys.executable)
    with pytest.raises(ResourceError):
        check_engine(spec(folders("llava")))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check_engine(spec(folders("llava")))


def test_vllm_is_refused_where_it_cannot_answer(folders, tmp_path, installed):
    with pytest.raises(ValueError, match=r"resources\.gpus_per_actor: got 0"):
        spec(folders("llava"), gpus=0)
    with pytest.raises(ValueError, match="builtin:tiny-vllm"):
        spec("builtin:tiny-vllm")
    with pytest.raises(CheckpointError, match="family mllama"):
        check_engine(spec(folders("mllama")))
    folder = adapters(folders("llava"), tmp_path / "a", rank=2, towers=("vision",))
    with pytest.raises(CheckpointError, match="`mixlens merge`"):
        check_engine(spec(folder))


@pytest.mark.parametrize("towers", [("language", "projector"), ("language",)])
def test_a_sweep_of_adapters_is_refused_before_it_is_trained(folders, installed, towers):
    content = {
        "name": "s",
        "model": folders("llava"),
        "components": {"a": {"tasks": {"coarse": 1}}},
        "design": {"kind": "arms", "arms": {"a": {"a": 1.0}}},
        "training": {
            "steps": 1, "global_batch": 1, "micro_batch": 1, "lora": {"towers": towers},
        },
        "evaluation": {"component": "a", "examples": 8, "engine": "vllm"},
        "resources": {"gpus_per_actor": 1},
    }  # fmt: skip
    if towers == ("language",):
        check_engine(SweepSpec.model_validate(content))
    else:
        with pytest.raises(ValueError, match=r"training\.lora\.towers has projector"):
            SweepSpec.model_validate(content)
