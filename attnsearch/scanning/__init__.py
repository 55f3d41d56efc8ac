"""Scanning a model: plan what will be sampled and stored, then do it block by block."""

from typing import TYPE_CHECKING, Final

from attnsearch.lazy import loader

if TYPE_CHECKING:
    from attnsearch.scanning.cost import sketch_cost as sketch_cost
    from attnsearch.scanning.distributed import ScanRequest as ScanRequest
    from attnsearch.scanning.distributed import run_tasks as run_tasks
    from attnsearch.scanning.distributed import scan_tasks as scan_tasks
    from attnsearch.scanning.dit import DiTSubject as DiTSubject
    from attnsearch.scanning.entry import open_subject as open_subject
    from attnsearch.scanning.entry import prompts_of as prompts_of
    from attnsearch.scanning.entry import read_checkpoint as read_checkpoint
    from attnsearch.scanning.entry import scan as scan
    from attnsearch.scanning.execute import estimate_seconds as estimate_seconds
    from attnsearch.scanning.execute import execute_plan as execute_plan
    from attnsearch.scanning.pipeline import PipelineSubject as PipelineSubject
    from attnsearch.scanning.plan import ScanPlan as ScanPlan
    from attnsearch.scanning.plan import plan_scan as plan_scan
    from attnsearch.scanning.plan import read_captions as read_captions
    from attnsearch.scanning.reading import Reading as Reading
    from attnsearch.scanning.subject import Subject as Subject

_HOMES: Final = {
    "DiTSubject": "dit",
    "PipelineSubject": "pipeline",
    "Reading": "reading",
    "ScanPlan": "plan",
    "ScanRequest": "distributed",
    "Subject": "subject",
    "estimate_seconds": "execute",
    "execute_plan": "execute",
    "open_subject": "entry",
    "plan_scan": "plan",
    "prompts_of": "entry",
    "read_captions": "plan",
    "read_checkpoint": "entry",
    "run_tasks": "distributed",
    "scan": "entry",
    "scan_tasks": "distributed",
    "sketch_cost": "cost",
}

__all__ = sorted(_HOMES)
__getattr__ = loader(__name__, _HOMES)
