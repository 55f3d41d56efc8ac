"""Does the relational head return in every model that learned relations, and in no other?

python benchmarks/families.py [--store zoo.zarr] [--output FILE]

Scans every packaged model but those of the overlap study into one store and clusters their heads,
by the commands a user would type. What a store has already is not scanned again. `python
benchmarks/relational_heads.py` writes what comes out into docs/results.md.
"""

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from attnsearch import zoo
from attnsearch_kernels.machine import describe_machine

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results" / "families.json"
PICTURE: Final = ROOT / "docs" / "heads.png"
ATTNSEARCH: Final = (sys.executable, "-c", "from attnsearch.cli import main; main()")


def main() -> None:
    """Scan, cluster, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, help="Keep the scans here.")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        store = arguments.store or Path(folder) / "zoo.zarr"
        models = [path for path in zoo.packaged() if not path.stem.startswith("overlap")]
        for model in models:
            subprocess.run([*ATTNSEARCH, "scan", str(model), "--store", str(store)], check=True)
        command = [*ATTNSEARCH, "cluster", str(store), "--json", "--top", "1000"]
        found = subprocess.run([*command, "-o", str(PICTURE)], check=True, stdout=subprocess.PIPE)
    families = json.loads(found.stdout)
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "models": [model.stem for model in models],
        "families": families,
    }
    arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for family in families:
        print(
            f"{family['name']:36} {family['coverage']:2} of {family['models']}  "
            f"cohesion {family['cohesion']:.2f}  p {family['p_value']:.3g}"
        )


if __name__ == "__main__":
    main()
