"""Whether the files of a model hold what the model needs, all of it and nothing else.

transformers and peft make up what a file does not give, and pass over what they cannot place; both
say so in a log at most. Here that is an error. transformers itself says which tensors may be absent
(tied to others) or may be there for nothing (buffers that it computes).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mixlens.errors import CheckpointError, explain, first_line
from mixlens.models.folder import tensor_shapes, weight_files

SHOWN = 3  # names of each kind that a message shows
Shape = tuple[int, ...]
Misshapen = tuple[str, Shape, Shape]  # name, shape in the files, shape in the model


def check_whole(config: Any, folder: Path) -> None:
    """Refuse a folder of a whole model by the headers of its files; no weight is read.

    Args:
        config: the model's transformers configuration.
        folder: where its files are.

    Raises:
        CheckpointError: files are missing or damaged, or do not hold what `config` describes.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    tensors = {
        name: torch.empty(shape, device="meta")
        for name, shape in tensor_shapes(weight_files(folder)).items()
    }
    try:
        with _no_progress_bar():
            _, report = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)].from_pretrained(
                None,
                config=config,
                state_dict=tensors,
                device_map={"": "meta"},
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise CheckpointError(
            explain("model", str(folder), f"it cannot be loaded: {first_line(error).rstrip('.')}",
                    "Give a whole folder as save_pretrained writes it.")
        ) from error  # fmt: skip
    refuse_incomplete(str(folder), report)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Show no bar for what takes no time."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def refuse_incomplete(source: str, report: Mapping[str, Any]) -> None:
    """Raise unless transformers' report of a load is spotless."""
    missing, unexpected = report["missing_keys"], report["unexpected_keys"]
    if odd := differences(missing, unexpected, report["mismatched_keys"], "the model"):
        remedy = _unwrap(missing, unexpected) or (
            "Give a whole folder as save_pretrained writes it, with the config.json of these "
            "weights."
        )
        raise CheckpointError(
            explain("model", source, f"its weights are not those of the model that its config.json "
                    f"describes: {odd}", remedy)
        )  # fmt: skip


def differences(
    missing: Collection[str],
    unexpected: Collection[str],
    misshapen: Collection[Misshapen],
    taker: str,
) -> str:
    """What does not fit, in words: how many and the first names of each kind; "" if all does."""
    parts = []
    if missing:
        parts.append(f"{len(missing)} tensors are missing ({_first(missing)})")
    if unexpected:
        parts.append(f"{len(unexpected)} are of no use to {taker} ({_first(unexpected)})")
    if misshapen:
        shown = [
            f"{name}: {list(there)} in the file, {list(needed)} in {taker}"
            for name, there, needed in misshapen
        ]
        parts.append(f"{len(misshapen)} have another shape ({_first(shown)})")
    return ", and ".join(parts)


def _first(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join([*ordered[:SHOWN], *(["..."] if len(ordered) > SHOWN else [])])


def _unwrap(missing: Collection[str], unexpected: Collection[str]) -> str | None:
    """The remedy where all names begin with what a wrapper of the model has put there."""
    first = {name.partition(".")[0] for name in unexpected}
    if len(first) != 1 or not missing:
        return None
    (wrapper,) = first
    if any(name.startswith(f"{wrapper}.") for name in missing):
        return None
    return (
        f"All names in the file begin with '{wrapper}.', which a wrapper has put before them: save "
        "the model inside the wrapper, or take that off the names."
    )
