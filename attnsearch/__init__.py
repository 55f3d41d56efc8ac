"""A search engine for the attention maps of text-to-image diffusion transformers.

The names below are the public page. They load on first use, so that importing `attnsearch` costs
nothing.
"""

from typing import TYPE_CHECKING, Final

from attnsearch.lazy import loader

if TYPE_CHECKING:
    from attnsearch.ablation import Ablation as Ablation
    from attnsearch.ablation import Mode as Mode
    from attnsearch.ablation import measure_effects as measure_effects
    from attnsearch.api.ablate import ablate as ablate
    from attnsearch.api.aggregate import aggregate as aggregate
    from attnsearch.api.ask import ask as ask
    from attnsearch.api.circuit import circuit as circuit
    from attnsearch.api.cluster import behaviours as behaviours
    from attnsearch.api.cluster import cluster as cluster
    from attnsearch.api.evaluate import evaluate as evaluate
    from attnsearch.api.maps import maps as maps
    from attnsearch.api.rank import rank as rank
    from attnsearch.api.similar import similar as similar
    from attnsearch.api.steer import steer as steer
    from attnsearch.api.verify import verify as verify
    from attnsearch.axes import HeadAddress as HeadAddress
    from attnsearch.capturing.live import capture as capture
    from attnsearch.circuits import circuit_of as circuit_of
    from attnsearch.circuits import screening_of as screening_of
    from attnsearch.clustering import find_families as find_families
    from attnsearch.clustering.signatures import signatures as signatures
    from attnsearch.clustering.signatures import standardised as standardised
    from attnsearch.errors import AttnsearchError as AttnsearchError
    from attnsearch.metrics import METRICS as METRICS
    from attnsearch.metrics import Template as Template
    from attnsearch.metrics import metric as metric
    from attnsearch.models import load_checkpoint as load_checkpoint
    from attnsearch.prompts import Prompt as Prompt
    from attnsearch.prompts import read_prompts as read_prompts
    from attnsearch.sampling import SamplerConfig as SamplerConfig
    from attnsearch.scanning import scan as scan
    from attnsearch.store import open_scan as open_scan
    from attnsearch.store import open_scans as open_scans
    from attnsearch.store import open_store as open_store

_HOMES: Final = {
    "Ablation": "ablation",
    "AttnsearchError": "errors",
    "HeadAddress": "axes",
    "METRICS": "metrics",
    "Mode": "ablation",
    "Prompt": "prompts",
    "SamplerConfig": "sampling",
    "Template": "metrics",
    "ablate": "api.ablate",
    "aggregate": "api.aggregate",
    "ask": "api.ask",
    "behaviours": "api.cluster",
    "capture": "capturing.live",
    "circuit": "api.circuit",
    "circuit_of": "circuits",
    "cluster": "api.cluster",
    "evaluate": "api.evaluate",
    "find_families": "clustering",
    "load_checkpoint": "models",
    "maps": "api.maps",
    "measure_effects": "ablation",
    "metric": "metrics",
    "open_scan": "store",
    "open_scans": "store",
    "open_store": "store",
    "rank": "api.rank",
    "read_prompts": "prompts",
    "scan": "scanning",
    "screening_of": "circuits",
    "similar": "api.similar",
    "signatures": "clustering.signatures",
    "standardised": "clustering.signatures",
    "steer": "api.steer",
    "verify": "api.verify",
}

__all__ = sorted(_HOMES)


__getattr__ = loader(__name__, _HOMES)


def __dir__() -> list[str]:
    return list(__all__)
