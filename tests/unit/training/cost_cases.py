"""Models and measured steps that the cost estimates are judged by."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mixlens.models.torchvision_ops import make_torchvision_importable
from mixlens.training.cost.live import live_peak
from mixlens.training.cost.setting import Setting
from mixlens.training.cost.shape import ModelShape
from mixlens.training.cost.tokens import RowTokens
from mixlens.training.objective import answer_loss_sum, before_answers

ROWS, VISUAL, TEXT, ANSWERS = 2, 196, 104, 40
LLAVA_TOKENS = RowTokens(
    encoder=VISUAL + 1,
    encoder_length=VISUAL + 1,
    projected=VISUAL,
    decoder=VISUAL + TEXT,
    logits=VISUAL + TEXT,
    answers=ANSWERS,
)
ATTENTION = {"plain": "mixlens_plain", "eager": "eager", "fused": "sdpa"}


def llava_config(**text: Any) -> Any:
    """A LLaVA of width 256 with four blocks, and an encoder of width 128 with three."""
    make_torchvision_importable()
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=128, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
            image_size=112, patch_size=8,
        ),
        text_config=LlamaConfig(
            **{
                "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4,
                "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 2000,
                "tie_word_embeddings": False,
            } | text
        ),
        image_token_id=5,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )  # fmt: skip


def llava(attention: str = "plain", **text: Any) -> Any:
    config = llava_config(**text)
    from transformers import LlavaForConditionalGeneration

    import mixlens.models.attention  # noqa: F401 - makes "mixlens_plain" known

    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    model.set_attn_implementation(ATTENTION[attention])
    return model


def llava_towers(model: Any) -> dict[str, list[nn.Module]]:
    return {
        "vision": [model.model.vision_tower],
        "projector": [model.model.multi_modal_projector],
        "language": [model.model.language_model, model.lm_head],
    }


def llava_batch(rows: int = ROWS) -> tuple[dict[str, Tensor], Tensor]:
    """Inputs and labels of rows in which a mask says what sees what, as packed turns have it."""
    length = VISUAL + TEXT
    ids = torch.randint(10, 1000, (rows, length))
    ids[:, :VISUAL] = 5
    labels = torch.full_like(ids, -100)
    labels[:, -ANSWERS:] = ids[:, -ANSWERS:]
    mask = torch.ones(length, length, dtype=torch.bool).tril()
    return {
        "input_ids": ids,
        "attention_mask": mask[None, None].repeat(rows, 1, 1, 1),
        "position_ids": torch.arange(length)[None].repeat(rows, 1),
        "pixel_values": torch.randn(rows, 3, 112, 112),
    }, labels


@dataclass(frozen=True)
class Prepared:
    """A model to be trained as a setting says."""

    model: Any
    trained: list[nn.Parameter]


def prepared(model: Any, towers: Mapping[str, list[Any]], setting: Setting) -> Prepared:
    """Freeze, adapt and checkpoint `model` as `setting` says, with what a user would call."""
    for tower in setting.freeze:
        for part in towers[tower]:
            part.requires_grad_(False)
    whole = model
    if setting.lora_rank is not None:
        from peft import LoraConfig, get_peft_model

        inside = {id(m) for t in setting.lora_towers for p in towers[t] for m in p.modules()}
        inside -= {id(model.get_output_embeddings())}
        linear = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and id(module) in inside
        ]
        whole = get_peft_model(
            model,
            LoraConfig(
                r=setting.lora_rank, lora_dropout=setting.lora_dropout, target_modules=linear
            ),
            autocast_adapter_dtype=False,
        )
    if setting.activation_checkpointing:
        whole.gradient_checkpointing_enable({"use_reentrant": False})
        # Else transformers sends gradients through frozen towers too, for nothing.
        whole.disable_input_require_grads()
    whole.train()
    return Prepared(whole, [p for p in whole.parameters() if p.requires_grad])


def measured_peak(
    ready: Prepared, inputs: dict[str, Tensor], labels: Tensor, setting: Setting
) -> int:
    """Peak live bytes of a training step in plain PyTorch, optimiser state and inputs included."""
    optimizer = torch.optim.AdamW(ready.trained, lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=setting.precision == "bf16"):
            before = before_answers(labels)
            logits = ready.model(**inputs, use_cache=False, logits_to_keep=before).logits
        loss = answer_loss_sum(logits, labels[:, before + 1])
        del logits
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    for parameter in ready.trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    states = [value for state in optimizer.state.values() for value in state.values()]
    held = [*ready.model.parameters(), *ready.model.buffers(), *inputs.values(), labels, *states]
    return live_peak(step, held)


def tokens_seen(model: Any, shape: ModelShape, run: Callable[[], object], rows: int) -> RowTokens:
    """Tokens of a row, as the modules of `model` see them during `run()`."""
    seen: dict[str, list[tuple[int, ...]]] = {}
    modules = dict(model.named_modules())

    def note(name: str) -> Any:
        def hook(module: Any, args: Any, kwargs: Any, out: Any) -> None:
            given = args[0] if args else next(iter(kwargs.values()))
            seen.setdefault(name, []).append(tuple(given.shape))

        return hook

    hooks = [
        modules[product.name].register_forward_hook(note(product.name), with_kwargs=True)
        for product in shape.products
        if product.name in modules
    ]
    run()
    for hook in hooks:
        hook.remove()

    def count(name: str) -> int:
        return sum(math.prod(size[:-1]) for size in seen[name]) // rows

    encoder = next(block.attending[0].name for block in shape.blocks if block.encoder)
    decoder = next(b.attending[0].name for b in shape.blocks if not b.encoder and not b.cross)
    visual = [p.name for p in shape.others if p.place == "projected" and p.name in seen]
    size = seen[encoder][0]
    # Gemma's projection is a bare parameter, whose module a hook cannot see into.
    projected = count(visual[0]) if visual else model.config.mm_tokens_per_image
    logits = count(next(p.name for p in shape.others if p.place == "logits"))
    return RowTokens(
        encoder=count(encoder),
        encoder_length=size[-2] if len(size) == 3 else size[0] // rows,
        projected=projected,
        decoder=count(decoder),
        logits=logits,
        answers=0,
    )
