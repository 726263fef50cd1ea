"""Vision LLMs: one adapter a family, loading, and the small built-in model."""

from mixlens.models.adapter import Adapter, Batch, DeletingAdapter, TokenSpans
from mixlens.models.memory import keep_freed_memory
from mixlens.models.vllm import (
    Vllm,
    fingerprint,
    load_vllm,
    model_config,
    model_folder,
    resolve_model,
)

__all__ = [
    "Adapter",
    "Batch",
    "DeletingAdapter",
    "TokenSpans",
    "Vllm",
    "fingerprint",
    "keep_freed_memory",
    "load_vllm",
    "model_config",
    "model_folder",
    "resolve_model",
]
