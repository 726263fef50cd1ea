"""One file a family: its `ADAPTERS` maps the model types of its configurations to their adapter."""

import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import Any

from mixlens.models.adapter import Adapter


def adapters() -> dict[str, Callable[[Any, Any], Adapter]]:
    """What makes the adapter of each supported model type of processor and configuration."""
    found: dict[str, Callable[[Any, Any], Adapter]] = {}
    for module in pkgutil.iter_modules(__path__):
        found.update(import_module(f"{__name__}.{module.name}").ADAPTERS)
    return found
