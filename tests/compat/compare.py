"""What an older transformers and peft make of saved models, and Mixlens of theirs: `make compat`.

    python tests/compat/compare.py OLD_PYTHON [FOLDER]

It needs `tests` and `tests/unit/training` on PYTHONPATH. OLD_PYTHON belongs to an environment with
the older packages and without Mixlens. For each family a base is written there; here it is trained
in full and with LoRA, and merged; there all three are read and written again, and here read once
more. Prints a table with the versions; exits with 1 where a number is not nearly zero, or not off
where `KNOWN` says that it is.
"""

import json
import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from test_training_families import case, run
from tiny_families import FAMILIES, build
from transformers import AutoConfig

from mixlens.models import load_vlm, save_config, save_processor
from mixlens.training.context import alone
from mixlens.training.merge import merge

TESTS = Path(__file__).parents[1]
QUESTION = "What colour is the circle ?"
NEARLY = 1e-4
ONE_GREY_LEVEL = 0.02  # the older one resizes with Pillow, the newer one with torch
# Published rotary positions differ from the default, and so do these.
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
ROPE: dict[str, dict[str, Any]] = {
    "llava": {"rope_theta": 5e5},
    "llava_next": {"rope_theta": 1e6},
    "llava_onevision": {"rope_theta": 1e6},
    "mllama": {**LLAMA3, "rope_theta": 5e5},
    "idefics3": {**LLAMA3, "rope_theta": 5e5},
    "smolvlm": {"rope_theta": 273768.0},
    "internvl": {"rope_theta": 1e6},
}
# Family and column -> why it is not nearly zero.
POSITIONS = "4.57.6 gives nearly all patches of a picture the position of another"
KNOWN: dict[tuple[str, str], str] = {
    (family, column): POSITIONS
    for family in ("idefics3", "smolvlm")
    for column in ("base", "full", "merged", "LoRA", "adapter, here")
}


def main() -> None:
    python, root = sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp())
    families = [family for family in FAMILIES if family != "molmo2"]  # the older one lacks it
    bases = {}
    for family in families:
        write_shape(family, root / family)
        bases[f"base {family}"] = {
            "do": "make_base",
            "source": str(root / family / "new"),
            "target": str(root / family / "base"),
        }
    found = ask(python, root, "bases", bases | {"versions": {"do": "versions"}})
    old = found.pop("versions")
    for family in families:
        if error := (found[f"base {family}"] or {}).get("error"):
            sys.exit(f"{family}: {error}")
        train_and_merge(root / family)
    seen = ask(
        python, root, "reading", {k: v for f in families for k, v in reads(root / f).items()}
    )
    rows = [row(root / family, seen) for family in families]
    new = {name: metadata.version(name) for name in old}
    for side, versions in (("here", new), ("there", old)):
        print(f"{side}: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    print(table(rows))
    wrong = [
        f"{cells['family']}, {column}: {value}"
        for cells in rows
        for column, value in cells.items()
        if column != "family" and is_off(column, value) != ((cells["family"], column) in KNOWN)
    ]
    if wrong:
        sys.exit("not as known:\n" + "\n".join(wrong))


def write_shape(family: str, folder: Path) -> None:
    """`new`: the configuration and processor of a tiny model, as Mixlens saves them."""
    build(family, folder / "tiny")
    path = folder / "tiny" / "config.json"
    config = json.loads(path.read_text())
    if family == "gemma3":
        linear = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
        config["text_config"]["rope_parameters"]["full_attention"] = linear
    else:
        config["text_config"]["rope_parameters"] |= ROPE.get(family, {})
    path.write_text(json.dumps(config))
    vlm = load_vlm(str(folder / "tiny"))
    vlm.model.save_pretrained(folder / "new")
    save_config(vlm.model, folder / "new")
    save_processor(vlm, folder / "new")


def train_and_merge(folder: Path) -> None:
    """Of the base that was written there: full, adapter and merged, with what they say here."""
    base, sizes = folder / "base", ((48, 48), (100, 60))
    for name, lora in (("full", False), ("lora", True)):
        (folder / name).mkdir()
        run(case(base, 0, lora, 2), alone(folder / name), sizes)
    merge(folder / "lora" / "model", folder / "merged")
    for name in ("base", "full/model", "lora/model", "merged"):
        show(folder / name, folder / f"{name.split('/')[0]}.pt")


def show(model: Path, shown: Path) -> None:
    """Keep a picture, its text, and what a model here makes of them."""
    vlm = load_vlm(str(model))
    # LLaVA 1.5 squeezes photographs here and crops them there; a square is the same to both.
    size = (64, 64) if vlm.adapter.config.model_type == "llava" else (60, 100)
    picture = np.random.default_rng(3).integers(0, 255, (*size, 3), np.uint8)
    inputs = vlm.adapter.question_batch([picture], [QUESTION])
    text = vlm.adapter.chat.question(QUESTION)
    words = vlm.processor.tokenizer(QUESTION, return_tensors="pt")["input_ids"]
    torch.save(
        {
            "picture": picture,
            "text": text,
            "adds": bool(torch.equal(inputs["input_ids"][0], tokens_of(vlm, picture, text, True))),
            "inputs": inputs,
            "logits": logits(vlm, inputs),
            "words": words,
            "logits of words": logits(vlm, {"input_ids": words}),
        },
        shown,
    )


def tokens_of(vlm: Any, picture: np.ndarray, text: str, adds: bool) -> torch.Tensor:
    """What the processor itself makes of a text, with the tokenizer's special tokens or without."""
    given = vlm.processor(
        images=[[picture]], text=[text], add_special_tokens=adds, return_tensors="pt"
    )
    return given["input_ids"][0]


@torch.no_grad()
def logits(vlm: Any, inputs: dict[str, Any]) -> torch.Tensor:
    return vlm.model.eval()(**inputs).logits


def reads(folder: Path) -> dict[str, dict[str, str]]:
    """The tasks of the other side for one family."""
    family, base = folder.name, str(folder / "base")
    tasks = {
        f"{name} {family}": {
            "do": "see", "folder": str(folder / path), "shown": f"{folder}/{name}.pt",
        }
        for name, path in (("base", "base"), ("full", "full/model"), ("merged", "merged"))
    }  # fmt: skip
    lora = {"do": "see", "folder": str(folder / "lora/model"), "shown": f"{folder}/lora.pt"}
    return tasks | {
        f"LoRA {family}": lora | {"base": base},
        f"again {family}": {
            "do": "save_again", "folder": str(folder / "full/model"), "target": f"{folder}/again",
        },
        f"adapter {family}": {
            "do": "make_adapter", "base": base, "target": f"{folder}/adapter",
            "shown": f"{folder}/base.pt",
        },
    }  # fmt: skip


def row(folder: Path, seen: dict[str, Any]) -> dict[str, Any]:
    """The cells of one family: how far apart both sides are."""
    family = folder.name
    cells: dict[str, Any] = {"family": family}
    for name in ("base", "full", "merged", "LoRA"):
        answer = seen[f"{name} {family}"]
        cells[name] = answer.get("error", answer.get("logits"))
    full = seen[f"full {family}"]
    cells["text alone"] = full.get("logits of words", "error")
    cells["tokens"] = "same" if full.get("text") and full.get("tokens") else "other"
    cells["pixels"] = full.get("pixels", "error")
    for name in ("again", "adapter"):
        error = (seen[f"{name} {family}"] or {}).get("error")
        cells[f"{name}, here"] = error or here_again(folder, name)
    return cells


def here_again(folder: Path, name: str) -> float | str:
    """How far a model that was written there is from what it was, read here."""
    vlm = load_vlm(str(folder / name))
    given = torch.load(folder / ("full.pt" if name == "again" else "base.pt"), weights_only=False)
    was = given["logits"] if name == "again" else torch.load(folder / name / "logits.pt")
    inputs = vlm.adapter.question_batch([given["picture"]], [QUESTION])
    if name == "again":
        if inputs["input_ids"].tolist() != given["inputs"]["input_ids"].tolist():
            return "other tokens"
        kept = AutoConfig.from_pretrained(folder / name).get_text_config().rope_parameters
        tiny = AutoConfig.from_pretrained(folder / "tiny").get_text_config().rope_parameters
        if kept != tiny:
            return f"rope {kept} for {tiny}"
    return float((logits(vlm, given["inputs"]) - was).abs().max())


def is_off(column: str, value: Any) -> bool:
    most = ONE_GREY_LEVEL if column == "pixels" else NEARLY
    return value != "same" and not (isinstance(value, float) and value < most)


def ask(python: str, root: Path, name: str, tasks: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Have the other side do tasks: name -> its answer."""
    listed, answers = root / f"{name}.json", root / f"{name}.answers.json"
    listed.write_text(json.dumps([{"name": name, **task} for name, task in tasks.items()]))
    command = [python, str(Path(__file__).with_name("old.py")), str(listed), str(answers)]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(TESTS)})
    return json.loads(answers.read_text())


def table(rows: list[dict[str, Any]]) -> str:
    def cell(value: Any) -> str:
        return f"{value:.2g}" if isinstance(value, float) else str(value)

    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([cell(row[name]) for name in head] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
