from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import attnsearch
from attnsearch.axes import Branch
from attnsearch.capturing import Selection
from attnsearch.errors import AttnsearchError, ConfigError, PromptError
from attnsearch.models import plain_attention
from attnsearch.models.families import guidance_layout, route
from attnsearch.prompts import parse_template
from attnsearch.store import ScanLayout, ScanWriter
from attnsearch_kernels import dct2

LINES = [
    "a {colour1:red} {shape1:square} is {relation:above} a {shape2:circle}",
    "a {colour1:red} {shape1:square} is {relation:below} a {shape2:zebra}",
]
PROMPTS = [parse_template(line) for line in LINES]
TEXTS = [prompt.text for prompt in PROMPTS]
ROLES = ["colour1", "shape1", "relation", "shape2", "filler", "end", "pad"]
FILLER = "filler"
WORDS = [FILLER, "colour1", "shape1", FILLER, "relation", FILLER, "shape2"]
TOKENS = 24
STEPS = 3
GRID = (2, 3)
COMMON = {
    "height": 32, "width": 48, "max_sequence_length": TOKENS, "num_inference_steps": STEPS,
    "output_type": "np",
}  # fmt: skip
GUIDED = {
    "pixart": {"use_resolution_binning": False, "clean_caption": False},
    "flux": {"true_cfg_scale": 3.0, "negative_prompt": ""},
}
UNGUIDED = {"pixart": {"guidance_scale": 1.0}, "flux": {"true_cfg_scale": 1.0}}

families = pytest.mark.parametrize("name", ["pixart", "flux"])


def paint(pipe, texts=TEXTS, seed=0, **changes):
    name = "flux" if "Flux" in type(pipe).__name__ else "pixart"
    count = len(texts) * changes.get("num_images_per_prompt", 1)
    settings = COMMON | GUIDED[name] | changes
    if name == "flux":  # which takes one for all to be of one prompt only
        settings["negative_prompt"] = [settings["negative_prompt"]] * len(texts)
    settings["generator"] = [torch.Generator().manual_seed(seed + index) for index in range(count)]
    return pipe(texts, **settings).images


def scanned(pipe, prompts=PROMPTS, settings=None, **changes):
    """The scan of one call."""
    texts = [prompt.text for prompt in prompts]
    with attnsearch.capture(pipe, prompts, **(settings or {})) as record:
        paint(pipe, texts, **changes)
    return record.scan()


def token_roles_by_hand(pipe, text, roles_of_words):
    """Words are tokenised one by one; then comes the end, then padding."""
    tokenizer = getattr(pipe, "tokenizer_2", pipe.tokenizer)
    roles = [
        role
        for word, role in zip(text.split(), roles_of_words, strict=True)
        for _ in tokenizer(word, add_special_tokens=False).input_ids
    ]
    return roles + ["end"] + ["pad"] * (TOKENS - 1 - len(roles))


def gamma_by_hand(pipe, text, roles_of_words):
    row = token_roles_by_hand(pipe, text, roles_of_words)
    return torch.eye(len(ROLES), dtype=torch.float64)[[ROLES.index(role) for role in row]]


def maps_in_float64(pipe, **changes):
    """Every map to the text tokens, by (step, branch, layer): [sample, head, image, text token]."""
    maps, passes = {}, []

    def attend(call):
        logits = call.scale * call.query.double() @ call.key.double().transpose(-1, -2)
        if call.key_mask is not None:
            logits = logits.masked_fill(~call.key_mask[:, None, None], -torch.inf)
        of_text = logits.softmax(-1)[..., call.text_keys or slice(None)]
        for branch, rows in call.branches:
            maps[passes[-1].step, branch, call.layer] = of_text[rows]
        return plain_attention(call)

    layout = guidance_layout(len(PROMPTS))
    with route(pipe.transformer, attend, layout=layout, on_pass=passes.append):
        paint(pipe, **changes)
    return maps


@families
def test_images_are_those_of_the_pipeline_alone(load, name):
    pipe = load(name)
    plain = paint(pipe)
    with attnsearch.capture(pipe, PROMPTS):
        watched = paint(pipe)
    np.testing.assert_allclose(watched, plain, atol=1e-4)


@families
def test_images_are_the_same_bits_where_nothing_is_recorded(load, name):
    pipe = load(name)
    plain = paint(pipe)
    with attnsearch.capture(pipe, PROMPTS, selection=Selection(steps=())) as record:
        np.testing.assert_array_equal(paint(pipe), plain)
    with pytest.raises(ConfigError, match="the selection leaves nothing to record"):
        record.scan()


@families
def test_sketches_are_those_of_the_maps_in_float64(load, name):
    pipe = load(name)
    scan = scanned(pipe)
    maps = maps_in_float64(pipe)
    basis = dct2(*GRID, 2, dtype=torch.float64)
    gamma = {
        Branch.COND: torch.stack([gamma_by_hand(pipe, text, WORDS) for text in TEXTS]),
        Branch.UNCOND: torch.stack([gamma_by_hand(pipe, "", [])] * len(TEXTS)),
    }
    assert len(maps) == STEPS * 2 * scan.sizes["layer"]
    for (step, branch, layer), attention in maps.items():
        found = scan.sel(step=step, branch=str(branch), layer=layer)
        by_role = attention @ gamma[branch][:, None]
        for array, expected in (
            ("sketch", by_role.transpose(-1, -2) @ basis),
            ("energy", by_role.square().sum(-2)),
        ):
            np.testing.assert_allclose(found[array], expected, atol=2e-3)
        if name == "pixart":  # all keys are text
            np.testing.assert_allclose(found["peak"], attention.amax(-1).mean(-1), atol=1e-4)


@families
def test_tokens_of_the_negative_prompt_are_an_end(load, name):
    pipe = load(name)
    scan = scanned(pipe, settings={"negative_prompt": "Blue circle"}, negative_prompt="Blue circle")
    uncond = scan["sketch"].sel(branch="uncond").astype("float64")
    assert not uncond.sel(role=ROLES[:5]).any()
    text = "blue circle" if name == "pixart" else "Blue circle"
    gamma = gamma_by_hand(pipe, text, ["end", "end"])
    assert gamma[:, ROLES.index("end")].sum() > 2
    attention = maps_in_float64(pipe, negative_prompt="Blue circle")[0, Branch.UNCOND, 0]
    expected = (attention @ gamma).transpose(-1, -2) @ dct2(*GRID, 2, dtype=torch.float64)
    np.testing.assert_allclose(uncond.isel(step=0, layer=0), expected, atol=2e-3)


@families
def test_a_second_call_is_another_seed(load, name):
    pipe = load(name)
    with attnsearch.capture(pipe, LINES) as record:
        paint(pipe, seed=0)
        paint(pipe, seed=40)
    scan = record.scan()
    assert list(scan["seed"].to_numpy()) == [0, 0, 1, 1]
    assert list(scan["prompt"].to_numpy()) == TEXTS * 2
    assert list(scan["relation"].to_numpy()) == ["above", "below"] * 2
    for seed, drawn in ((0, 0), (1, 40)):
        alone = scanned(pipe, seed=drawn)
        rows = scan.isel(sample=scan["seed"].to_numpy() == seed)
        for array in ("sketch", "entropy", "peak", "energy"):
            np.testing.assert_array_equal(rows[array], alone[array])


@families
def test_images_of_a_prompt_follow_one_another(load, name):
    pipe = load(name)
    scan = scanned(pipe, settings={"images_per_prompt": 2}, num_images_per_prompt=2)
    assert list(scan["prompt"].to_numpy()) == [TEXTS[0], TEXTS[0], TEXTS[1], TEXTS[1]]
    assert list(scan["seed"].to_numpy()) == [0, 1, 0, 1]
    for sample in range(4):
        alone = scanned(pipe, PROMPTS[sample // 2 : sample // 2 + 1], seed=sample)
        roles = alone["role"].to_numpy().tolist()
        found = scan["sketch"].isel(sample=sample).sel(role=roles)
        np.testing.assert_allclose(found, alone["sketch"][0], atol=2e-3)


@families
def test_without_guidance_there_is_one_branch(load, name):
    pipe = load(name)
    assert list(scanned(pipe, **UNGUIDED[name])["branch"].to_numpy()) == ["cond"]
    assert list(scanned(pipe)["branch"].to_numpy()) == ["uncond", "cond"]
    with attnsearch.capture(pipe, PROMPTS) as record:
        paint(pipe)
        paint(pipe, **UNGUIDED[name])
    with pytest.raises(ConfigError, match="calls with and without guidance"):
        record.scan()


@families
def test_steps_are_those_of_the_scheduler(load, name):
    pipe = load(name)
    scan = scanned(pipe)
    assert scan.sizes["step"] == STEPS
    np.testing.assert_array_equal(scan["timestep"], pipe.scheduler.timesteps.numpy())
    assert (np.diff(scan["noise_level"]) < 0).all()
    assert scan.attrs["grid"] == list(GRID)


def test_the_scan_is_what_a_store_gives_back(load, tmp_path):
    pipe = load("pixart")
    live = scanned(pipe)
    layout = ScanLayout(
        samples=2, steps=STEPS, branches=("uncond", "cond"), layers=2, heads=2,
        roles=tuple(ROLES), regions=(), scores=(), order=2, block=2, canvas=(1, 1),
    )  # fmt: skip
    coordinates = {str(name): values.to_numpy() for name, values in live.coords.items()}
    with ScanWriter.open(tmp_path / "s.zarr", "m", layout, coordinates, live.attrs) as writer:
        arrays = {str(name): values.to_numpy() for name, values in live.data_vars.items()}
        beside = {"thumbnail": np.zeros((2, 1, 1, 3), np.uint8), "flagged": np.zeros(2, bool)}
        writer.write_block(0, arrays | beside)
    stored = attnsearch.open_scan(tmp_path / "s.zarr").drop_vars(list(beside))
    for name in live.attrs:
        assert stored.attrs[name] == live.attrs[name]
    stored.attrs = live.attrs
    xr.testing.assert_identical(stored, live)
    assert {str(n): v.dtype for n, v in stored.variables.items()} == {
        str(n): v.dtype for n, v in live.variables.items()
    }


@families
def test_heads_are_ranked_and_scored_by_step(load, name):
    scan = scanned(load(name))
    heads = attnsearch.rank({"m": scan}, "relational")
    assert len(heads) == 4
    for head in heads:
        assert len(head.profile) == scan.sizes["step"]
        assert head.score == pytest.approx(np.mean(head.profile))


def test_heads_of_a_selection_keep_their_addresses(load):
    pipe = load("pixart")
    every = scanned(pipe)
    selection = Selection(layers=(1,), heads=(1,), steps=(0, 2), branches=(Branch.COND,))
    scan = scanned(pipe, settings={"selection": selection})
    chosen = every.sel(layer=[1], head=[1], step=[0, 2], branch=["cond"])
    np.testing.assert_allclose(scan["sketch"], chosen["sketch"], atol=1e-3)
    np.testing.assert_array_equal(scan["timestep"], chosen["timestep"])
    (head,) = attnsearch.rank({"m": scan}, "relational")
    assert str(head.address) == "L1H1"
    assert head.peak_step in (0, 2)


def test_a_line_without_marks_has_one_role_per_word(load):
    scan = scanned(load("pixart"), [parse_template("blue circle")])
    assert list(scan["role"].to_numpy()) == ["blue", "circle", "filler", "end", "pad"]


def test_the_order_of_the_basis_is_a_choice(load):
    pipe = load("pixart")
    assert scanned(pipe, settings={"order": 1}).sizes["basis"] == 1
    with pytest.raises(ConfigError, match="order 3 does not lie between 1 and 2"):
        scanned(pipe, settings={"order": 3})


class _BrokenError(Exception):
    pass


@families
def test_the_pipeline_is_as_before_after_an_exception(load, name):
    pipe = load(name)

    def state():
        modules = [module for part in pipe.components.values() if isinstance(part, nn.Module)
                   for module in part.modules()]  # fmt: skip
        return [
            (getattr(module, "processor", None), len(module._forward_pre_hooks),
             len(module._forward_hooks), "cache_context" in vars(module))
            for module in modules
        ]  # fmt: skip

    def fail():
        with attnsearch.capture(pipe, PROMPTS):
            assert state() != before
            raise _BrokenError

    before, plain = state(), paint(pipe)
    with pytest.raises(_BrokenError):
        fail()
    assert state() == before
    np.testing.assert_array_equal(paint(pipe), plain)


def test_a_call_cut_short_is_left_out(load):
    pipe = load("flux")

    def stop(*_):
        raise _BrokenError

    with attnsearch.capture(pipe, PROMPTS) as record:
        paint(pipe, seed=5)
        with pytest.raises(_BrokenError):
            paint(pipe, callback_on_step_end=stop)
        paint(pipe, seed=9)
    scan = record.scan()
    assert list(scan["seed"].to_numpy()) == [0, 0, 1, 1]
    np.testing.assert_array_equal(scan["sketch"][2:], scanned(pipe, seed=9)["sketch"])


def test_an_empty_block_says_so(load):
    with attnsearch.capture(load("pixart"), PROMPTS) as record:
        pass
    with pytest.raises(ConfigError, match="no call of the pipeline was finished"):
        record.scan()


CALLS = {
    "other rows": ({"num_images_per_prompt": 2}, "runs 8 rows where 2 prompts with 1 images"),
    "other texts": ({"texts": TEXTS[::-1]}, "reads other text than the prompts"),
    "fewer texts": ({"texts": TEXTS[:1]}, "reads other text than the prompts"),
    "marks in the text": ({"texts": LINES}, "reads other text than the prompts"),
    "a negative prompt": ({"negative_prompt": "blue"}, "another negative prompt than ''"),
}


@pytest.mark.parametrize("case", CALLS)
def test_a_call_of_something_else_is_refused_before_any_attention(load, monkeypatch, case):
    changes, reason = CALLS[case]
    pipe = load("pixart")
    reached = []
    monkeypatch.setattr(
        "attnsearch.capturing.recorder.Recorder.attend", lambda self, call: reached.append(call)
    )
    with pytest.raises(ConfigError, match=reason), attnsearch.capture(pipe, PROMPTS):
        paint(pipe, **changes)
    assert not reached


def test_embeddings_made_before_are_taken_for_those_of_the_prompts(load):
    pipe = load("pixart")
    expected = scanned(pipe)
    names = ("prompt_embeds", "prompt_attention_mask")
    names += tuple(f"negative_{name}" for name in names)
    made = pipe.encode_prompt(TEXTS, max_sequence_length=TOKENS)
    with attnsearch.capture(pipe, PROMPTS) as record:
        generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
        settings = COMMON | GUIDED["pixart"] | dict(zip(names, made, strict=True))
        pipe(negative_prompt=None, generator=generators, **settings)
    np.testing.assert_allclose(record.scan()["sketch"], expected["sketch"], atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"height": 48}, "paints 3 x 3 image tokens, the one before it 2 x 3"),
        ({"num_inference_steps": 2}, "takes 2 steps at other times than the 3 steps"),
    ],
)
def test_calls_that_do_not_fit_together_are_refused(load, changes, reason):
    pipe = load("pixart")
    with attnsearch.capture(pipe, PROMPTS) as record:
        paint(pipe)
        with pytest.raises(ConfigError, match=reason):
            paint(pipe, **changes)
    assert record.scan().sizes["sample"] == 2


def unknown_pipeline(load):
    return SimpleNamespace(unet=nn.Identity())


def unknown_transformer(load):
    return SimpleNamespace(transformer=nn.Identity())


def unknown_processor(load):
    pipe = load("pixart")
    pipe.transformer.transformer_blocks[1].attn2.set_processor(lambda *args: args)
    return pipe


def without_tokenizer(load):
    pipe = load("flux")
    pipe.tokenizer_2 = None
    return pipe


def video(load):
    return SimpleNamespace(transformer=type("WanTransformer3DModel", (nn.Module,), {})())


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (unknown_pipeline, "SimpleNamespace has no transformer"),
        (unknown_transformer, "the attention of Identity cannot be watched"),
        (unknown_processor, "layer 1 of PixArtTransformer2DModel has the attention processor"),
        (without_tokenizer, "FluxPipeline has no tokenizer_2"),
        (video, "SimpleNamespace makes videos"),
    ],
)
def test_a_pipeline_that_cannot_be_watched_is_refused_on_entering(load, build, reason):
    entered = []
    with (
        pytest.raises(ConfigError, match=reason) as caught,
        attnsearch.capture(build(load), PROMPTS) as record,
    ):
        entered.append(record)
    assert not entered
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("prompts", "settings", "error"),
    [
        ([], {}, ConfigError),
        (TEXTS, {"images_per_prompt": 0}, ConfigError),
        (TEXTS, {"order": 0}, ConfigError),
        (TEXTS, {"selection": Selection(layers=(7,))}, ConfigError),
        (["a {brace"], {}, PromptError),
        (["a {shape1:cat} {relation:above} it", "a cat {relation:above} it"], {}, PromptError),
        ([" ".join(f"word{letter}" for letter in "abcdefghijklmno")], {}, PromptError),
    ],
)
def test_settings_out_of_range_are_refused_on_entering(load, prompts, settings, error):
    entered = []
    with (
        pytest.raises(error) as caught,
        attnsearch.capture(load("pixart"), prompts, **settings) as record,
    ):
        entered.append(record)
    assert not entered
    assert isinstance(caught.value, AttnsearchError)


def test_captures_do_not_nest(load):
    pipe = load("pixart")
    with (
        attnsearch.capture(pipe, PROMPTS),
        pytest.raises(ConfigError, match="captures do not nest"),
        attnsearch.capture(pipe, PROMPTS),
    ):
        pass


@families
def test_samples_that_are_not_finite_are_left_out_and_counted(load, name):
    pipe = load(name)
    whole = scanned(pipe)
    with attnsearch.capture(pipe, PROMPTS) as record:
        paint(pipe)
    (call,) = record._calls
    next(iter(call.stored.values()))["peak"][0, 1, 0] = float("inf")
    scan = record.scan()
    assert scan.attrs["flagged_samples"] == 1
    assert scan["prompt"].values.tolist() == TEXTS[:1]
    xr.testing.assert_equal(scan["sketch"], whole["sketch"][:1])
    next(iter(call.stored.values()))["sketch"][:] = float("nan")
    with pytest.raises(ConfigError, match="no sample is finite"):
        record.scan()
