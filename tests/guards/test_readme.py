"""The figures of the README are those of the result files."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
KERNELS = (ROOT / "kernels" / "README.md").read_text(encoding="utf-8")


def _result(name: str):
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text(encoding="utf-8"))


def test_the_demonstration_is_quoted_as_measured():
    demo = _result("demo-cpu.json")
    assert f"{demo['maps']:,} maps" in README
    assert f"in {demo['scan_seconds']:.0f} s" in README
    assert f"{demo['evaluation']['in_distribution']['relation_loose']['value']:.1%}" in README
    for row in demo["ranking"][:3]:
        assert f"L{row['layer']}H{row['head']}  {row['score']:+.3f}" in README


def test_causes_are_quoted_as_measured():
    learned = {
        model["name"]: row["effects"]
        for model in _result("causes.json")["models"]
        for row in model["ablations"]
        if row["set"] == "family" and row["mode"] == "opposite" and "rtep" in model["name"]
    }
    least = min(effects["opposite"]["after"] for effects in learned.values())
    assert f"In all {len(learned)} models with such heads" in README
    assert f"it is at least {least:.0%}".replace("%", " %") in README
    shown = learned["rtep-femto-seed0"]
    for measure in ("opposite", "shape"):
        assert f"{shown[measure]['after']:.0%}".replace("%", " %") in README
    assert f"of {shown['shape']['images']} images, with both shapes" in README
    models = {model["name"]: model for model in _result("circuits.json")["models"]}
    reader = models["rtep-femto-seed0"]["readers"][0]
    assert f"At the first step {reader['head']}".lower() in README.lower()
    tilts = f"by {reader['tilt']:+.2f} logits, by {reader['tilt_without']:+.2f} without the two"
    said = " ".join(README.split())
    assert tilts in said
    same, swapped = list(models["rtep-femto-seed0"]["steering"].values())[:2]
    told = [f"{way['target']['value']:.0%}".replace("%", " %") for way in (same, swapped)]
    assert f"in the same colours it swaps the objects in {told[0]} of the images" in said
    assert f"of the same shapes in swapped colours in {told[1]}" in said
    words = models["rtep-femto-seed0"]["words"]
    right = {
        name: f"{seen['relation_loose']:.0%}".replace("%", " %") for name, seen in words.items()
    }
    assert f"relation is right in {right['both colours']} of the images" in said
    assert f"its own phrase hidden in {right['relation phrase']}, with the shapes" in said
    assert f"the shapes hidden in {right['both shapes']} ([circuits]" in said


def test_the_cost_of_a_scan_is_quoted_as_measured():
    for row in _result("scan-cpu.json")["rows"]:
        if row["variant"] != "scoring alone":
            assert f"| {row['variant']} | {row['over_sampling']['median']:.2f} |" in README
    for row in _result("memory-cpu.json")["rows"]:
        assert f"{max(row['peak_memory_growth_bytes']) / 2**20:.0f} MiB for" in README


def test_the_cost_of_the_sketch_is_quoted_as_measured():
    results = _result("kernels-cpu.json")
    assert results["machine"]["cpu"] in KERNELS
    for row in results["rows"]:
        sketched = row["variants"]["sketched"]["over_plain"]["median"]
        quoted = next(line for line in KERNELS.splitlines() if line.startswith(f"| {row['label']}"))
        assert f"| {sketched:.2f} |" in quoted


def test_other_tools_are_quoted_as_measured():
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    for row in _result("models-cpu.json")["rows"]:
        if row["variant"] == "plain":
            continue
        quoted = next(
            line for line in page.splitlines() if line.startswith(f"| {row['variant']} |")
        )
        sizes = (row["peak_memory_growth_bytes"], row["held_bytes"], row["disk_bytes"])
        cells = ["-" if size is None else f"{size / 2**20:.0f}" for size in sizes]
        expected = [f"{row['over_plain']['median']:.2f}", *cells]
        assert [cell.strip() for cell in quoted.split("|")[2:6]] == expected


def test_tiles_say_whether_they_were_timed():
    timed = any((ROOT / "benchmarks" / "results").glob("tune-*.json"))
    assert timed != ("No GPU run has been made yet" in KERNELS)


def test_promises_are_quoted_as_measured():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    crash, soak = _result("crash-cpu.json"), _result("soak-cpu.json")
    kills = crash["settings"]["kills"]
    assert f"| {kills}, {crash['acknowledged']}, {crash['lost']}, {crash['torn']} |" in page
    identical = crash["stores_finished"] - crash["stores_different"]
    assert f"| {crash['stores_finished']}, {identical} |" in page
    failures = soak["lost"] + soak["torn"] + soak["different"] + soak["unreadable"]
    counts = (soak["kills"], soak["finished"], soak["readings"], failures)
    minutes = f"{soak['seconds'] / 60:.0f}"
    assert f"| {minutes}, {', '.join(f'{count:,}' for count in counts)} |" in page
    for row in _result("durability-cpu.json")["rows"]:
        assert f"{row['over_careless']['median']:.2f} ({row['work']})" in page
    for row in _result("backends-cpu.json")["rows"]:
        taken = "-" if row["seconds"] is None else f"{1000 * row['seconds']['median']:.0f}"
        forced = "-" if row["forced"] is None else row["forced"]
        assert f"| {row['backend']} | {taken} | {forced} |" in page


def test_what_an_answer_takes_is_quoted_as_measured():
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8").splitlines()
    results = _result("aggregate-cpu.json")
    sizes = [store["maps"] for store in results["stores"]]
    assert sum(f"| {' | '.join(f'{size:,}' for size in sizes)} |" in line for line in page) == 1
    for way, cold in {(row["way"], row["cold"]) for row in results["rows"]}:
        cells = []
        for size in sizes:
            row = next(
                row
                for row in results["rows"]
                if (row["maps"], row["way"], row["cold"]) == (size, way, cold)
            )
            seconds = sorted(each["seconds"] for each in row["rounds"])
            cells.append(f"{seconds[len(seconds) // 2]:.2f}" if seconds else row["refused"])
            peak = max((each["peak_bytes"] for each in row["rounds"]), default=0) / 2**20
        label = f"{way}, from disk" if cold else way
        assert f"| {label} | {' | '.join(cells)} | {peak:,.0f} |" in page


def test_the_metrics_are_quoted_as_checked():
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    planted = _result("planted.json")
    for metric, precision in planted["average_precision"].items():
        false = planted["false"].get(metric)
        shares = f"{false['q']:.1%} | {false['family']:.1%} |" if false else "- | - |"
        row = f"| `{metric}` | {precision['mean']:.3f} | {precision['smallest']:.2f} | {shares}"
        assert row in page
    covered = planted["covered"].values()
    assert f"{min(covered):.1%} to {max(covered):.1%} of 4,800" in page
    families = _result("planted-families.json")
    own, steady = families["own"], families["steady"]
    for heads in ("own", "steady"):
        for row in families[heads]["found"]:
            precision = f"{row['precision']:.3f} | {row['worst_precision']:.2f}"
            recall = f"{row['recall']:.3f} | {row['worst_recall']:.2f}"
            assert f"| {heads} | {row['models']} | {precision} | {recall} |" in page
    assert f"in {own['false']} of {own['empty']} stores of 4 models" in page
    assert f"of steady heads in {steady['false']}:" in " ".join(page.split())
    for row in _result("stability.json")["rows"]:
        ranks = f"{row['spearman']:.2f} | {row['smallest_spearman']:.2f}"
        rest = f"{row['pearson']:.3f} | {row['same_first_head']:.0%}"
        assert f"| `{row['metric']}` | {row['halves_of']} | {ranks} | {rest} |" in page
    for row in _result("rank-cpu.json")["rows"]:
        quoted = f"| {row['kind']} | {row['heads']:,} | {row['seconds']:.1f} | {row['ratio']:.0f} |"
        assert quoted in page
