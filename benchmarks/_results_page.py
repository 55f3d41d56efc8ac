"""docs/results.md and its pictures, written from benchmarks/results/relational-heads.json."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from _results_causes import causes_sections
from _results_claims import LEARNED, STRONG, SURE, claims, relational_heads, since
from _results_families import family_section
from _results_text import address, paragraph, share, table

from attnsearch.axes import HeadAddress
from attnsearch.report import emergence as curves
from attnsearch.task.spec import PRESETS
from attnsearch.zoo.emergence import Snapshot

Model = dict[str, Any]

_MEASURED: Final = (
    "step", "shape", "colour", "binding", "relation_loose", "score", "q_value",
)  # fmt: skip
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
            *family_section(results.get("families", []), main),
            *causes_sections(
                results.get("causes"), results.get("circuits"), main, PAPER["ablation"]
            ),
            *_emergence_section(main),
            *_overlap_section([model for model in models if _is_overlap(model)], main),
            *_claims_section(main),
            *_missing_section(results["missing"], results["outdated"]),
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
            curves.draw(followed).savefig(folder / name, dpi=110)


def _introduction(models: Sequence[Model]) -> list[str]:
    counts = models[0]["accuracies"]
    trained, unseen = (
        counts.get(split, {}).get("binding", {}).get("count", 0)
        for split in ("in_distribution", "held_out")
    )
    first = models[0]
    canvas = PRESETS[first["task"]].canvas
    machines = sorted({f"{m['machine']['cpu']}, GPU {m['machine']['gpu']}" for m in models})
    return [
        "# Results",
        "",
        "<!-- Written by `python benchmarks/relational_heads.py`; do not edit. -->",
        "",
        *paragraph(
            "Which text encodings let a diffusion transformer paint a relation, by which heads,",
            "and when do these appear? Small models, trained from scratch on scenes of two",
            "objects by `attnsearch zoo train experiments/*.toml --out runs`. Images have",
            f"{canvas} px; captions name both colours and have one wording a relation; sampled",
            f"in {first['sampling_steps']} steps with guidance {first['guidance']}. Trained,",
            f"sampled and scanned on: {'; '.join(machines)}. Every number on this page comes",
            "from [one file](../benchmarks/results/relational-heads.json), which `python",
            "benchmarks/relational_heads.py` gathers from the records of the packaged models.",
        ),
        *paragraph(
            "Intervals are 95 %: Wilson's for shares of images, a bootstrap over prompts for",
            f"scores. Accuracies count {trained} images of combinations trained on and {unseen}",
            "of combinations held out. *Relation* is the paper's loose relation: both objects",
            "once, in their colours, and on the asked side. *Given binding* leaves out the",
            "images without both objects; over all prompts, a model that knows the words of a",
            "caption but not their order gets half of these at best. The relational score lies",
            "in [-1, 1]: at +1 the map of the relation words lies where object 1 is to go, at",
            "-1 where object 2 is to go; q is its p-value adjusted for the number of heads",
            "([the null](decisions/0003-null-of-the-relational-metric.md)).",
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
            share(model["accuracies"]["in_distribution"]["relation_loose"]),
            share(model["relation_given_binding"]["in_distribution"]),
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
        *table(columns, rows),
        "",
        *paragraph(
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
                share(model[part].get(split, {}).get("relation_loose"))
                if part == "accuracies"
                else share(model[part].get(split))
                for part in ("accuracies", "relation_given_binding")
                for split in ("in_distribution", "held_out")
            ),
        ]
        if model["encoder"] != "rte"
        else [model["name"], *"----"]
        for model in models
    ]
    columns = ["model", "relation", "held out", "given binding", "held out, given binding"]
    return [
        "## Combinations never trained on",
        "",
        *paragraph(
            "Each ordered pair of objects was never captioned in one of the eight relations;",
            "the mirrored caption, which asks for the same layout, was. Without positions both",
            "are one caption, so that the split says nothing of such models (-).",
        ),
        *table(columns, rows),
        "",
    ]


def _head_section(models: Sequence[Model]) -> list[str]:
    columns = [
        "model", "head", "score", "interval", "p", "q", "next head", "its score", "its q",
        f"size >= {STRONG}, q < {SURE}",
    ]  # fmt: skip
    rows = []
    for model in models:
        best, second = model["heads"][:2]
        rows.append(
            [
                model["name"],
                address(best),
                f"{best['score']:+.3f}",
                f"{best['ci_low']:+.3f} to {best['ci_high']:+.3f}",
                f"{best['p_value']:.2g}",
                f"{best['q_value']:.2g}",
                address(second),
                f"{second['score']:+.3f}",
                f"{second['q_value']:.2g}",
                ", ".join(map(address, relational_heads(model["heads"]))) or "none",
            ]
        )
    steps = max(len(model["best_head_by_step"]) for model in models)
    profile = [
        [model["name"], address(model["heads"][0])]
        + [f"{score:+.2f}" for score in model["best_head_by_step"]]
        + ["-"] * (steps - len(model["best_head_by_step"]))
        for model in models
    ]
    return [
        "## The best relational head of every model",
        "",
        *table(columns, rows),
        "",
        *paragraph(
            "A p-value is coarse where few direction words carry the score, so the larger of",
            "two scores can have the larger q.",
        ),
        "Score of the best head by sampling step, 0 the noisiest:",
        "",
        *table(["model", "head", *(str(step) for step in range(steps))], profile),
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
                address(head),
                f"{head['cosine']:+.3f}",
                f"{head['projection']:+.2f}",
                f"{head['q_value']:.2g}",
            ]
        best, second = (address(head) for head in model["heads"][:2])
        rows.append([*cells, f"{best}, {second}"])
    return [
        "## The same question put to the weights",
        "",
        *paragraph(
            "`attnsearch rank CKPT --metric qk-relational` samples nothing: it compares the",
            "logits of image positions against relation words with a ramp along the relation.",
            "Cosine is the shape of the map, projection its strength in logits.",
        ),
        *table(columns, rows),
        "",
        "![QK maps of the two heads that lead in rtep-femto-seed0](qk.png)",
        "",
        *paragraph(
            "QK maps of the two heads that lead in rtep-femto-seed0, in logits less their mean",
            "over relations: one looks where object 1 is to go, one where object 2 is.",
        ),
    ]


def _emergence_section(models: Sequence[Model]) -> list[str]:
    followed = [model for model in models if model["emergence"]]
    if not followed:
        return []
    rows = [
        [
            model["name"],
            _since(model, "relational_heads", 1),
            _since(model, "given_binding", LEARNED),
            _since(model, "shape", 0.5),
            _since(model, "relation_loose", 0.5),
            f"{model['emergence'][-1]['step']:,}",
        ]
        for model in followed
    ]
    columns = [
        "model", f"a head: size >= {STRONG}, q < {SURE}", f"relation given binding >= {LEARNED}",
        "shapes >= 0.5", "relation >= 0.5", "followed to",
    ]  # fmt: skip
    return [
        "## When the head appears",
        "",
        *paragraph(
            "Between which two snapshots of the training each began to hold, and held from then",
            "on. A snapshot has the averaged weights, which lag behind those that are trained.",
        ),
        *table(columns, rows),
        "",
        "![Accuracies and head scores along training](emergence.png)",
        "",
        *paragraph(
            "Binding and relation count only images whose two shapes can be told. Above, shares",
            "of images in combinations trained on, one image per prompt; below, the size of the",
            f"best head's relational score, with a dot where q < {SURE}.",
        ),
    ]


def _overlap_section(models: Sequence[Model], others: Sequence[Model]) -> list[str]:
    if not models:
        return []
    rows = [
        [
            f"{model['overlap']['boxes']:.0%}",
            f"{model['overlap']['hidden']:.0%}",
            str(model["seed"]),
            _since(model, "relational_heads", 1),
            _since(model, "given_binding", LEARNED),
            _since(model, "relation_loose", 0.5),
            share(model["accuracies"]["in_distribution"]["relation_loose"]),
            f"{model['heads'][0]['score']:+.3f}",
            f"{model['steps']:,}",
        ]
        for model in models
    ]
    columns = [
        "overlapping boxes", "object 1 partly hidden", "seed", "a relational head",
        f"relation given binding >= {LEARNED}", "relation >= 0.5", "relation at the end",
        "best head at the end", "steps",
    ]  # fmt: skip
    return [
        "## Does occlusion teach the order of objects?",
        "",
        *paragraph(
            "Without overlap, which object a caption names first shows only through the",
            "relation itself: order and direction have to be learned together. Where objects",
            "overlap, the second hides the first. The same model (RTEP) on scenes that differ",
            "in how near the two centres may be; columns as above, not reached means within the",
            f"steps of the last column. {_same_runs(models, others)}",
        ),
        *table(columns, rows),
        "",
        "![Learning by overlap](overlap.png)",
        "",
    ]


def _same_runs(models: Sequence[Model], others: Sequence[Model]) -> str:
    """Which of these runs began as one of another table, and went on otherwise at its end."""
    same = ("encoder", "size", "seed", "overlap", "task")
    pairs = [
        f"{model['name']} is {other['name']} up to the last quarter of its steps"
        for model in models
        for other in others
        if all(model[key] == other[key] for key in same)
    ]
    return f"{'; '.join(pairs)}." if pairs else ""


def _claims_section(models: Sequence[Model]) -> list[str]:
    rows = [[claim.paper, claim.here, claim.verdict, claim.note] for claim in claims(models, PAPER)]
    return [
        "## Against the paper",
        "",
        *table(["the paper", "here", "", "note"], rows),
        "",
    ]


def _missing_section(missing: Sequence[str], outdated: Sequence[str]) -> list[str]:
    lines = []
    if missing:
        lines.append(f"{', '.join(missing)}. The command at the top of this page trains them.")
    if outdated:
        lines.append(f"Published under an older experiment: {', '.join(outdated)}.")
    return ["## Not trained yet", "", *paragraph(*lines)] if lines else []


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
    return [
        Snapshot(head=HeadAddress(**row["head"]), **{key: row[key] for key in _MEASURED})
        for row in model["emergence"]
    ]


def _since(model: Model, what: str, least: float) -> str:
    """The two snapshots between which something began to hold and held from then on."""
    step = since(model["emergence"], what, least)
    if step is None:
        return "not reached"
    before = max((row["step"] for row in model["emergence"] if row["step"] < step), default=0)
    return f"{before:,} to {step:,}"
