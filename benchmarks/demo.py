"""What `make demo` shows, timed: scan the packaged model, rank its heads, evaluate its images.

python benchmarks/demo.py [--output benchmarks/results/demo-cpu.json]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from attnsearch.zoo import demonstration
from attnsearch_kernels.machine import describe_machine


def main() -> None:
    """Run the three commands as a user would and record what they print."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parent / "results" / "demo-cpu.json"
    parser.add_argument("--output", type=Path, default=default)
    output: Path = parser.parse_args().output
    checkpoint = str(demonstration())
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "demo.zarr")
        plan = json.loads(_run("scan", checkpoint, "--store", store, "--dry-run")[0])
        _, scan_seconds = _run("scan", checkpoint, "--store", store)
        files = [path for path in Path(store).rglob("*") if path.is_file()]
        ranking, rank_seconds = _run("rank", store, "--metric", "relational", "--json")
        evaluation, _ = _run("evaluate", checkpoint, "--seeds", "8", "--json")
        result = {
            "machine": describe_machine(),
            "checkpoint": Path(checkpoint).name,
            "maps": plan["maps"],
            "samples": plan["samples"],
            "scan_seconds": round(scan_seconds, 2),
            "rank_seconds": round(rank_seconds, 2),
            "store_bytes": sum(path.stat().st_size for path in files),
            "store_files": len(files),
            "ranking": json.loads(ranking)[:5],
            "evaluation": _by_split(json.loads(evaluation)),
        }
    output.write_text(json.dumps(result, indent=1) + "\n")
    head = result["ranking"][0]
    print(f"maps {result['maps']:,}  scan {scan_seconds:.1f} s  rank {rank_seconds:.1f} s")
    print(f"store {result['store_bytes'] / 2**20:.0f} MiB in {len(files)} files")
    print(f"first head L{head['layer']}H{head['head']}  score {head['score']:+.3f}")


def _by_split(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Accuracies by split and measure."""
    splits: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["value"] is not None:
            accuracy = {name: row[name] for name in ("value", "low", "high", "count")}
            splits.setdefault(row["split"], {})[row["measure"]] = accuracy
    return splits


def _run(*words: str) -> tuple[str, float]:
    """Output of one attnsearch command and its seconds from start to end, imports included."""
    begin = perf_counter()
    command: list[Any] = [sys.executable, "-c", "from attnsearch.cli import main; main()", *words]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    return finished.stdout, perf_counter() - begin


if __name__ == "__main__":
    main()
