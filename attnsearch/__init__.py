"""A search engine for the attention maps of text-to-image diffusion transformers.

The names below are the public page. They load on first use, so that importing `attnsearch` costs
nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from attnsearch.axes import HeadAddress as HeadAddress
    from attnsearch.capturing.live import capture as capture
    from attnsearch.errors import AttnsearchError as AttnsearchError
    from attnsearch.evaluation import evaluate as evaluate
    from attnsearch.metrics import Template as Template
    from attnsearch.metrics import View as View
    from attnsearch.metrics import rank as rank
    from attnsearch.models import load_checkpoint as load_checkpoint
    from attnsearch.prompts import Prompt as Prompt
    from attnsearch.prompts import read_prompts as read_prompts
    from attnsearch.scanning import scan as scan
    from attnsearch.store import open_scan as open_scan
    from attnsearch.store import open_store as open_store

_HOMES: Final = {
    "AttnsearchError": "errors",
    "HeadAddress": "axes",
    "Prompt": "prompts",
    "Template": "metrics",
    "View": "metrics",
    "capture": "capturing.live",
    "evaluate": "evaluation",
    "load_checkpoint": "models",
    "open_scan": "store",
    "open_store": "store",
    "rank": "metrics",
    "read_prompts": "prompts",
    "scan": "scanning",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'attnsearch' has no attribute {name!r}")
    return getattr(import_module(f"attnsearch.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
