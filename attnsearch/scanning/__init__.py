"""Scanning a checkpoint: plan what will be sampled and stored, then do it block by block."""

from attnsearch.scanning.cost import sketch_cost
from attnsearch.scanning.execute import estimate_seconds, execute_plan, scan
from attnsearch.scanning.plan import ScanPlan, device_name, plan_scan, read_prompts, scan_name

__all__ = [
    "ScanPlan",
    "device_name",
    "estimate_seconds",
    "execute_plan",
    "plan_scan",
    "read_prompts",
    "scan",
    "scan_name",
    "sketch_cost",
]
