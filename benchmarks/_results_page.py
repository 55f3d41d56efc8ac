"""docs/results.md and its pictures, written from benchmarks/results/relational-heads.json."""

import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from _results_claims import STRONG, SURE, claims

from attnsearch.axes import HeadAddress
from attnsearch.report import emergence as curves
from attnsearch.zoo.emergence import Snapshot

Model = dict[str, Any]

PAPER: Final = tomllib.loads((Path(__file__).parent / "paper.toml").read_text(encoding="utf-8"))
ENCODINGS: Final = {
    "rtep": "random token embeddings with positions",
    "rte": "random token embeddings",
    "minilm": "MiniLM, contextual",
    "t5": "T5, contextual",
    "clip": "CLIP, contextual",
}


def page(results: dict[str, Any]) -> str:
    """The whole page."""
    models = sorted(results["models"], key=_order)
    main = [model for model in models if not _is_overlap(model)]
    return "\n".join(
        [
            *_introduction(models),
            *_accuracy_section(main),
            *_held_out_section(main),
            *_head_section(main),
            *_weights_section(main),
            *_emergence_section(main),
            *_overlap_section([model for model in models if _is_overlap(model)]),
            *_claims_section(main),
            *_missing_section(results["missing"]),
        ]
    )


def write_pictures(results: dict[str, Any], folder: Path) -> None:
    """emergence.png and overlap.png."""
    for name, chosen in (
        ("emergence.png", lambda model: not _is_overlap(model)),
        ("overlap.png", _is_overlap),
    ):
        followed = {
            _title(model): _snapshots(model)
            for model in sorted(results["models"], key=_order)
            if model["emergence"] and chosen(model)
        }
        if followed:
            curves.write(folder / name, followed)


def _introduction(models: Sequence[Model]) -> list[str]:
    counts = models[0]["accuracies"]
    trained, unseen = (counts[s]["binding"]["count"] for s in ("in_distribution", "held_out"))
    machines = sorted({f"{m['machine']['cpu']}, GPU {m['machine']['gpu']}" for m in models})
    return [
        "# Results",
        "",
        "<!-- Written by `python benchmarks/relational_heads.py`; do not edit. -->",
        "",
        *_paragraph(
            "Which text encodings let a diffusion transformer paint a relation, by which heads,",
            "and when do these appear? Small models, trained from scratch on scenes of two",
            "objects by `attnsearch zoo train experiments/*.toml --out runs`. Trained, sampled",
            f"and scanned on: {'; '.join(machines)}. Every number on this page comes from [one",
            "file](../benchmarks/results/relational-heads.json), which `python",
            "benchmarks/relational_heads.py` gathers from the records of the packaged models.",
        ),
        *_paragraph(
            "Intervals are 95 %: Wilson's for shares of images, a bootstrap over prompts for",
            f"scores. Accuracies count {trained} images of combinations trained on and {unseen}",
            "of combinations held out. *Relation* is the paper's loose relation: both objects",
            "once, in their colours, and on the asked side. *Given binding* leaves out the",
            "images without both objects; a model that knows the words of a caption but not",
            "their order gets half of these at best. The relational score lies in [-1, 1]: at",
            "+1 the map of the relation words lies where object 1 is to go, at -1 where object",
            "2 is to go; q is its p-value adjusted for the number of heads ([the",
            "null](decisions/0003-null-of-the-relational-metric.md)).",
        ),
    ]


def _accuracy_section(models: Sequence[Model]) -> list[str]:
    columns = [
        "model", "encoding", "parameters", "shape", "colour", "binding", "relation",
        "given binding",
    ]  # fmt: skip
    rows = [
        [
            model["name"],
            ENCODINGS[model["encoder"]],
            f"{model['parameters']:,}",
            *(
                f"{model['accuracies']['in_distribution'][key]['value']:.3f}"
                for key in ("shape", "colour", "binding")
            ),
            _share(model["accuracies"]["in_distribution"]["relation_loose"]),
            _share(model["relation_given_binding"]["in_distribution"]),
        ]
        for model in models
    ]
    rows += [
        [
            f"paper: {each['name']}",
            ENCODINGS[each["encoder"]],
            f"{each['parameters']:,}",
            *(f"{each[key]:.3f}" for key in ("shape", "colour", "binding", "relation_loose")),
            f"{each['relation_loose'] / each['binding']:.3f}",
        ]
        for each in PAPER["models"]
    ]
    return [
        "## Accuracy",
        "",
        *_table(columns, rows),
        "",
        *_paragraph(
            f"The paper's rows: averaged weights at step {PAPER['training_steps']:,},",
            f"{PAPER['images_per_model']:,} images each, no combination held out, 128 px latent",
            "models ([source](../benchmarks/paper.toml)). Like T5, MiniLM reads the whole",
            "caption; it is no T5.",
        ),
    ]


def _held_out_section(models: Sequence[Model]) -> list[str]:
    rows = [
        [
            model["name"],
            *(
                _share(model["accuracies"][split]["relation_loose"])
                for split in ("in_distribution", "held_out")
            ),
            *(
                _share(model["relation_given_binding"][split])
                for split in ("in_distribution", "held_out")
            ),
        ]
        for model in models
    ]
    columns = ["model", "relation", "held out", "given binding", "held out, given binding"]
    return [
        "## Combinations never trained on",
        "",
        "Each ordered pair of objects was never shown in one of the eight relations.",
        "",
        *_table(columns, rows),
        "",
    ]


def _head_section(models: Sequence[Model]) -> list[str]:
    columns = ["model", "head", "score", "interval", "p", "q", "next head", "its score", "its q"]
    rows = []
    for model in models:
        best, second = model["heads"][:2]
        rows.append(
            [
                model["name"],
                _address(best),
                f"{best['score']:+.3f}",
                f"{best['ci_low']:+.3f} to {best['ci_high']:+.3f}",
                f"{best['p_value']:.2g}",
                f"{best['q_value']:.2g}",
                _address(second),
                f"{second['score']:+.3f}",
                f"{second['q_value']:.2g}",
            ]
        )
    steps = len(models[0]["best_head_by_step"])
    profile = [
        [model["name"], _address(model["heads"][0])]
        + [f"{score:+.2f}" for score in model["best_head_by_step"]]
        for model in models
    ]
    return [
        "## The best relational head of every model",
        "",
        *_table(columns, rows),
        "",
        *_paragraph(
            "A p-value is coarse where few direction words carry the score, so the larger of",
            "two scores can have the larger q.",
        ),
        "Score of the best head by sampling step, 0 the noisiest:",
        "",
        *_table(["model", "head", *(str(step) for step in range(steps))], profile),
        "",
    ]


def _weights_section(models: Sequence[Model]) -> list[str]:
    columns = [
        "model", "head", "cosine", "projection", "q", "next head", "its cosine",
        "its projection", "its q", "the two best by sampling",
    ]  # fmt: skip
    rows = []
    for model in models:
        cells = [model["name"]]
        for head in model["heads_from_weights"][:2]:
            cells += [
                _address(head),
                f"{head['cosine']:+.3f}",
                f"{head['projection']:+.2f}",
                f"{head['q_value']:.2g}",
            ]
        best, second = (_address(head) for head in model["heads"][:2])
        rows.append([*cells, f"{best}, {second}"])
    return [
        "## The same question put to the weights",
        "",
        *_paragraph(
            "`attnsearch rank CKPT --metric qk-relational` samples nothing: it compares the",
            "logits of image positions against relation words with a ramp along the relation.",
            "Cosine is the shape of the map, projection its strength in logits.",
        ),
        *_table(columns, rows),
        "",
    ]


def _emergence_section(models: Sequence[Model]) -> list[str]:
    followed = [model for model in models if model["emergence"]]
    if not followed:
        return []
    rows = [
        [
            model["name"],
            _first(model, lambda s: abs(s["score"]) >= STRONG and s["q_value"] < SURE),
            _first(model, lambda s: _given(s) >= 0.75),
            _first(model, lambda s: s["shape"] >= 0.5),
            _first(model, lambda s: s["relation_loose"] >= 0.5),
            f"{model['emergence'][-1]['step']:,}",
        ]
        for model in followed
    ]
    columns = [
        "model", f"head: size of score >= {STRONG}, q < {SURE}", "relation given binding >= 0.75",
        "shapes >= 0.5", "relation >= 0.5", "followed to",
    ]  # fmt: skip
    return [
        "## When the head appears",
        "",
        "First snapshot of the training at which:",
        "",
        *_table(columns, rows),
        "",
        "![Accuracies and head scores along training](emergence.png)",
        "",
        *_paragraph(
            "Binding and relation count only images whose two shapes can be told. Above, shares",
            "of images in combinations trained on, one image per prompt; below, the size of the",
            f"best head's relational score, with a dot where q < {SURE}.",
        ),
    ]


def _overlap_section(models: Sequence[Model]) -> list[str]:
    if not models:
        return []
    rows = [
        [
            f"{model['overlap']['boxes']:.0%}",
            f"{model['overlap']['hidden']:.0%}",
            str(model["seed"]),
            _first(model, lambda s: abs(s["score"]) >= STRONG and s["q_value"] < SURE),
            _first(model, lambda s: _given(s) >= 0.75),
            _first(model, lambda s: s["relation_loose"] >= 0.5),
            _share(model["accuracies"]["in_distribution"]["relation_loose"]),
            f"{model['heads'][0]['score']:+.3f}",
            f"{model['steps']:,}",
        ]
        for model in models
    ]
    columns = [
        "overlapping boxes", "object 1 partly hidden", "seed", f"head >= {STRONG}",
        "relation given binding >= 0.75", "relation >= 0.5", "relation at the end",
        "best head at the end", "steps",
    ]  # fmt: skip
    return [
        "## Does occlusion teach the order of objects?",
        "",
        *_paragraph(
            "Without overlap, which object a caption names first shows only through the",
            "relation itself: order and direction have to be learned together. Where objects",
            "overlap, the second hides the first. The same model (RTEP) on scenes that differ",
            "in how near the two centres may be; columns as above, first snapshot at which:",
        ),
        *_table(columns, rows),
        "",
        "![Learning by overlap](overlap.png)",
        "",
    ]


def _claims_section(models: Sequence[Model]) -> list[str]:
    rows = [
        [claim.paper, claim.here, "agrees" if claim.holds else "differs", claim.why]
        for claim in claims(models, PAPER)
    ]
    return [
        "## Against the paper",
        "",
        *_table(["the paper", "here", "", "why"], rows),
        "",
    ]


def _missing_section(missing: Sequence[str]) -> list[str]:
    if not missing:
        return []
    return [
        "## Not trained yet",
        "",
        *_paragraph(f"{', '.join(missing)}. The command at the top of this page trains them."),
    ]


def _paragraph(*pieces: str) -> list[str]:
    return [*wrap(" ".join(pieces), 100, break_long_words=False, break_on_hyphens=False), ""]


def _order(model: Model) -> tuple[Any, ...]:
    overlap = model["overlap"]["boxes"]
    return list(ENCODINGS).index(model["encoder"]), overlap, model["parameters"], model["seed"]


def _is_overlap(model: Model) -> bool:
    return bool(model["name"].startswith("overlap"))


def _title(model: Model) -> str:
    if not _is_overlap(model):
        return str(model["name"])
    return f"{model['overlap']['boxes']:.0%} overlap, seed {model['seed']}"


def _snapshots(model: Model) -> list[Snapshot]:
    return [Snapshot(**{**row, "head": HeadAddress(**row["head"])}) for row in model["emergence"]]


def _first(model: Model, holds: Callable[[dict[str, Any]], bool]) -> str:
    """The first snapshot from which on a condition holds, or that there is none."""
    found = next((row["step"] for row in model["emergence"] if holds(row)), None)
    return "not reached" if found is None else f"{found:,}"


def _given(row: dict[str, Any]) -> float:
    return float(row["relation_loose"] / row["binding"]) if row["binding"] else 0.0


def _address(head: dict[str, Any]) -> str:
    return str(HeadAddress(head["layer"], head["head"]))


def _share(row: dict[str, Any] | None) -> str:
    return "-" if row is None else f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield f"| {' | '.join(row)} |"
