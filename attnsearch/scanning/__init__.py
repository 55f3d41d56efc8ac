"""Scanning a model: plan what will be sampled and stored, then do it block by block."""

from attnsearch.scanning.cost import sketch_cost
from attnsearch.scanning.distributed import ScanRequest, run_tasks, scan_tasks
from attnsearch.scanning.dit import DiTSubject
from attnsearch.scanning.entry import (
    Reading,
    open_subject,
    prompts_of,
    read_checkpoint,
    scan,
    scan_name,
)
from attnsearch.scanning.execute import estimate_seconds, execute_plan
from attnsearch.scanning.pipeline import PipelineSubject
from attnsearch.scanning.plan import ScanPlan, plan_scan, read_captions
from attnsearch.scanning.subject import Subject

__all__ = [
    "DiTSubject",
    "PipelineSubject",
    "Reading",
    "ScanPlan",
    "ScanRequest",
    "Subject",
    "estimate_seconds",
    "execute_plan",
    "open_subject",
    "plan_scan",
    "prompts_of",
    "read_captions",
    "read_checkpoint",
    "run_tasks",
    "scan",
    "scan_name",
    "scan_tasks",
    "sketch_cost",
]
