"""What Ray's stage uses of vLLM, answered by transformers: for tests of everything around it.

It takes no argument that vLLM 0.29 does not take, and gives what that gives.
"""

import asyncio
import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from PIL.Image import Image


@dataclass
class AsyncEngineArgs:
    model: str
    dtype: str
    max_model_len: int
    gpu_memory_utilization: float
    tensor_parallel_size: int
    distributed_executor_backend: str
    limit_mm_per_prompt: dict
    enable_prefix_caching: bool
    trust_remote_code: bool
    seed: int
    runner: str
    enable_log_requests: bool
    enable_lora: bool = False
    max_loras: int = 0
    max_lora_rank: int = 0

    def create_engine_config(self):
        assert not self.trust_remote_code
        return SimpleNamespace(
            scheduler_config=SimpleNamespace(max_num_seqs=4),
            parallel_config=SimpleNamespace(pipeline_parallel_size=1),
        )


@dataclass
class SamplingParams:
    temperature: float
    max_tokens: int
    stop_token_ids: list[int]
    ignore_eos: bool
    detokenize: bool
    structured_outputs: None


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    outputs: list
    prompt: str | None = None
    metrics: None = None
    prompt_logprobs: None = None
    finished: bool = True


@dataclass
class Answer:
    token_ids: list[int]
    text: str = ""
    logprobs: None = None


@dataclass
class AsyncLLMEngine:
    args: AsyncEngineArgs
    loaded: dict = field(default_factory=dict)

    @classmethod
    def from_engine_args(cls, args, stat_loggers):
        if "broken" in args.model:
            raise ValueError("the architecture of this model is not supported")
        return cls(args)

    def _load(self, path):
        from mixlens.models import load_vlm

        if path not in self.loaded:
            self.loaded[path] = load_vlm(path)
        return self.loaded[path]

    async def generate(self, request_id, prompt, sampling_params, lora_request):
        ids, image = prompt["prompt_token_ids"], prompt["multi_modal_data"]["image"]
        assert isinstance(image, Image)
        assert type(ids) is list
        assert (sampling_params.temperature, sampling_params.detokenize) == (0, False)
        assert sampling_params.ignore_eos
        if lora_request:
            assert self.args.enable_lora
        vllm = self._load(lora_request.lora_path if lora_request else self.args.model)
        text = vllm.processor.tokenizer.decode(ids)
        given = vllm.processor(
            images=[[np.asarray(image)]], text=[text], add_special_tokens=False, return_tensors="pt"
        )
        length = given["input_ids"].shape[1]
        assert length + sampling_params.max_tokens <= self.args.max_model_len
        with torch.inference_mode():
            out = vllm.model.generate(
                **given,
                do_sample=False,
                max_new_tokens=sampling_params.max_tokens,
                eos_token_id=sampling_params.stop_token_ids,
            )
        said = out[0, length:].tolist()
        await asyncio.sleep(0.01 * (int(request_id) % 3))  # so that they end in another order
        yield RequestOutput(ids, [Answer(said)])

    async def do_log_stats(self):
        pass

    def shutdown(self):
        pass


def _module(name, **content):
    module = ModuleType(f"vllm.{name}")
    vars(module).update(content)
    sys.modules[module.__name__] = module
    return module


inputs = _module("inputs", TokensPrompt=dict, TextPrompt=dict)
outputs = _module("outputs", RequestOutput=RequestOutput)
lora = _module("lora", request=_module("lora.request", LoRARequest=LoRARequest))
