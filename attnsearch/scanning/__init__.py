"""Scanning a checkpoint: plan what will be sampled and stored, then do it block by block."""

from attnsearch.scanning.execute import estimate_seconds, execute_plan, scan
from attnsearch.scanning.plan import ScanPlan, plan_scan, read_prompts, scan_name

__all__ = [
    "ScanPlan",
    "estimate_seconds",
    "execute_plan",
    "plan_scan",
    "read_prompts",
    "scan",
    "scan_name",
]
