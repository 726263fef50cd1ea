"""Vision LLMs: one adapter a family, loading, and the small built-in model."""

from mixlens.models.adapter import (
    Adapter,
    Batch,
    Encoded,
    LookingAdapter,
    ShrinkingAdapter,
    TokenSpans,
)
from mixlens.models.folder import resolve_model
from mixlens.models.identity import fingerprint
from mixlens.models.memory import keep_freed_memory
from mixlens.models.saved import save_adapter_names, save_config, save_processor
from mixlens.models.torchvision_ops import make_torchvision_importable
from mixlens.models.vlm import (
    VLM,
    check_model,
    check_weights,
    load_adapter,
    load_vlm,
    load_without_weights,
    meta_model,
    model_config,
    model_folder,
)

# Anything of transformers that handles images imports torchvision where there is one.
make_torchvision_importable()

__all__ = [
    "VLM",
    "Adapter",
    "Batch",
    "Encoded",
    "LookingAdapter",
    "ShrinkingAdapter",
    "TokenSpans",
    "check_model",
    "check_weights",
    "fingerprint",
    "keep_freed_memory",
    "load_adapter",
    "load_vlm",
    "load_without_weights",
    "meta_model",
    "model_config",
    "model_folder",
    "resolve_model",
    "save_adapter_names",
    "save_config",
    "save_processor",
]
