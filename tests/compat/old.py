"""The side of the older transformers: `python old.py TASKS ANSWERS`, without Mixlens.

TASKS is a JSON list of objects with a name, a function of this file and its arguments; ANSWERS
becomes name -> what the function gave, or {"error": what it raised}.
"""

import inspect
import json
import runpy
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

# Lets torchvision be imported beside a torch for CPUs; it is a file of its own.
_ROOT = Path(__file__).parents[2]
_OPS = runpy.run_path(str(_ROOT / "platform" / "mixlens" / "models" / "torchvision_ops.py"))
_OPS["make_torchvision_importable"]()

from peft import LoraConfig, PeftModel, get_peft_model  # noqa: E402
from PIL import Image  # noqa: E402
from tiny_assets import spread_weights  # noqa: E402
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor  # noqa: E402

QUESTION = "What colour is the circle ?"


def versions() -> dict:
    names = ("transformers", "tokenizers", "peft", "torch", "torchvision")
    return {name: metadata.version(name) for name in names}


def make_base(source: str, target: str) -> None:
    """A model of the configuration and processor in `source`, written by this transformers."""
    config = AutoConfig.from_pretrained(source)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config)
    spread_weights(model, seed=0)
    model.save_pretrained(target)
    AutoProcessor.from_pretrained(source).save_pretrained(target)


def see(folder: str, shown: str, base: str = "") -> dict:
    """What a model folder, or an adapter on its base, makes of the picture and text in `shown`."""
    given = torch.load(shown, weights_only=False)
    model = _load(folder, base)
    processor = AutoProcessor.from_pretrained(folder)
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    own = dict(
        processor(images=[Image.fromarray(given["picture"])], text=[given["text"]],
                  add_special_tokens=given["adds"], return_tensors="pt")
    )  # fmt: skip
    same = own["input_ids"].tolist() == given["inputs"]["input_ids"].tolist()
    pixels, theirs = own["pixel_values"], given["inputs"]["pixel_values"]
    return {
        "text": text == given["text"],
        "tokens": same,
        "pixels": _off(pixels, theirs),
        "logits": _off(_logits(model, given["inputs"]), given["logits"]),
        "logits of words": _off(
            _logits(model, {"input_ids": given["words"]}), given["logits of words"]
        ),
    }


def save_again(folder: str, target: str) -> None:
    """Load a model folder and write it anew, with its processor."""
    _load(folder).save_pretrained(target)
    AutoProcessor.from_pretrained(folder).save_pretrained(target)


def make_adapter(base: str, target: str, shown: str) -> None:
    """An adapter of random weights on all linear layers, and its logits of `shown`."""
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(_load(base), config).eval()
    model.save_pretrained(target)
    given = torch.load(shown, weights_only=False)
    torch.save(_logits(model, given["inputs"]), Path(target) / "logits.pt")


def _load(folder: str, base: str = "") -> torch.nn.Module:
    model = AutoModelForImageTextToText.from_pretrained(base or folder, dtype=torch.float32)
    return (PeftModel.from_pretrained(model, folder) if base else model).eval()


@torch.no_grad()
def _logits(model: torch.nn.Module, inputs: dict) -> torch.Tensor:
    plain = model.get_base_model() if isinstance(model, PeftModel) else model
    takes = inspect.signature(plain.forward).parameters
    return model(**{name: value for name, value in inputs.items() if name in takes}).logits


def _off(left: torch.Tensor, right: torch.Tensor) -> float | str:
    if left.shape != right.shape:
        return f"{tuple(left.shape)} for {tuple(right.shape)}"
    return float((left.double() - right.double()).abs().max())


def main() -> None:
    tasks, answers = map(Path, sys.argv[1:])
    done = {}
    for task in json.loads(tasks.read_text()):
        name, what = task.pop("name"), globals()[task.pop("do")]
        try:
            done[name] = what(**task)
        except Exception as error:  # the answer is what it says
            done[name] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    answers.write_text(json.dumps(done, default=np.ndarray.tolist, indent=1))


main()
