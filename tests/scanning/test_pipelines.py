"""Scans of tiny pipelines of the real diffusers classes, from disk, held against float64 maps."""

import inspect
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from typer.testing import CliRunner

import attnsearch
from attnsearch.cli import app
from attnsearch.sampling import SamplerConfig
from attnsearch.scanning import Reading
from attnsearch_kernels import dct2

# diffusers turns a tensor into an array in a way NumPy is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE, STEPS, SEEDS = 64, 2, 2
ROLES = ("colour1", "shape1", "relation", "shape2", "filler", "end", "pad")


def joint(*blocks):
    return [f"{name}.{index}.attn" for name, count in blocks for index in range(count)]


# What is watched; who reads the text, None for zeros; where the text keys are, in joint attention.
EXPECTED = {
    "pixart": SimpleNamespace(
        layers=[f"transformer_blocks.{i}.attn2" for i in (0, 1)],
        encoders=[("text_encoder", "tokenizer", 120)],
        cell=16,
    ),
    "sana": SimpleNamespace(
        layers=[f"transformer_blocks.{i}.attn2" for i in (0, 1)],
        encoders=[("text_encoder", "tokenizer", 300)],
        heads=4,
        cell=8,
    ),
    "sana_sprint": SimpleNamespace(
        layers=[f"transformer_blocks.{i}.attn2" for i in (0, 1)],
        encoders=[("text_encoder", "tokenizer", 300)],
        heads=4,
        cell=8,
        branches=["cond"],
    ),
    "hunyuandit": SimpleNamespace(
        layers=["blocks.0.attn2", "blocks.1.attn2"],
        encoders=[("text_encoder", "tokenizer", 77), ("text_encoder_2", "tokenizer_2", 256)],
        cell=16,
    ),
    "sd3": SimpleNamespace(
        layers=joint(("transformer_blocks", 2)),
        encoders=[("text_encoder", "tokenizer", 77), ("text_encoder_3", "tokenizer_3", 256)],
        text_keys=slice(16, None),
        cell=16,
    ),
    "sd3_without_t5": SimpleNamespace(
        layers=joint(("transformer_blocks", 2)),
        encoders=[("text_encoder", "tokenizer", 77), (None, None, 256)],
        text_keys=slice(16, None),
        cell=16,
    ),
    "flux": SimpleNamespace(
        layers=joint(("transformer_blocks", 1), ("single_transformer_blocks", 1)),
        encoders=[("text_encoder_2", "tokenizer_2", 512)],
        text_keys=slice(0, 512),
        cell=16,
        branches=["cond"],
    ),
}


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def scan(folder, store, prompts, *words):
    return run(
        "scan", folder, "--store", store, "--prompts", prompts, "--size", SIZE, "--steps", STEPS,
        "--seeds", SEEDS, "--device", "cpu", *words,
    )  # fmt: skip


def files(folder: Path):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module", params=sorted(EXPECTED))
def family(request):
    return request.param


@pytest.fixture(scope="module")
def stores(pipeline_folder, prompts, tmp_path_factory):
    """From the name of a family to the store that the command line made of it."""
    root = tmp_path_factory.mktemp("stores")

    def store_of(name):
        store = root / f"{name}.zarr"
        if not store.exists():
            result = scan(pipeline_folder(name), store, prompts)
            assert result.exit_code == 0, (result.output, result.exception)
        return store

    return store_of


class Materialised(TorchFunctionMode):
    """Computes every attention map of some modules in float64, beside a run left to itself."""

    def __init__(self, transformer, layers):
        super().__init__()
        self.maps = {layer: [] for layer in range(len(layers))}
        self.layer = None
        for layer, name in enumerate(layers):
            module = transformer.get_submodule(name)
            module.register_forward_pre_hook(lambda *_, layer=layer: self.enter(layer))
            module.register_forward_hook(lambda *_: self.enter(None))

    def enter(self, layer):
        self.layer = layer

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention and self.layer is not None:
            with torch._C.DisableTorchFunction():
                self.maps[self.layer].append(materialise(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def materialise(query, key, value, attn_mask=None, **defaults):
    assert not any(defaults.values())
    logits = query.double() @ key.double().transpose(-1, -2) / query.shape[-1] ** 0.5
    if attn_mask is not None:
        logits = logits + attn_mask.double()  # a bias, in all that have one
    return logits.softmax(-1)


def listen(pipe, encoders):
    """The ids and masks that each encoder is given, call by call."""
    heard = {name: [] for name, _, _ in encoders if name}

    def note(name):
        def hook(module, args, kwargs):
            heard[name].append(args[0] if args else kwargs["input_ids"])

        return hook

    for name in heard:
        getattr(pipe, name).register_forward_pre_hook(note(name), with_kwargs=True)
    return heard


def role_at(text, marks):
    """The role of each character of a text without its blanks."""
    roles = ["filler"] * len(text)
    for role, words in marks.items():
        begin = text.index(words)
        roles[begin : begin + len(words)] = [role] * len(words)
    return [role for role, letter in zip(roles, text, strict=True) if not letter.isspace()]


def roles_of_ids(tokenizer, ids, text, marks):
    """A role per token id, by writing the tokens out one after the other along the text."""
    places, letters = role_at(text, marks), "".join(text.split()).lower()
    roles, done, ended = [], 0, False
    for token in ids:
        assert token != tokenizer.unk_token_id or tokenizer.unk_token == tokenizer.eos_token
        if token in tokenizer.all_special_ids:
            # CLIP pads with the very token that ends a text.
            pad = ended or token == tokenizer.pad_token_id != tokenizer.eos_token_id
            ended |= token in (tokenizer.eos_token_id, tokenizer.sep_token_id)
            roles.append("pad" if pad else "end")
            continue
        piece = tokenizer.decode([token]).strip().replace("##", "").lower()
        assert letters[done:].startswith(piece)
        roles.append(places[done])
        done += len(piece)
    assert done == len(letters)
    return roles


def gamma_of(pipe, encoders, heard, rows, branch):
    """Gamma [row, text token, role] from what the encoders were given."""
    gamma = [[] for _ in rows]
    for encoder, tokenizer, length in encoders:
        ids = heard[encoder][branch == "uncond"].tolist() if encoder else None
        for row, (text, marks) in enumerate(rows):
            if ids is None:
                gamma[row] += ["pad"] * length
                continue
            assert len(ids[row]) == length
            said = ("", {}) if branch == "uncond" else (text, marks)
            gamma[row] += roles_of_ids(getattr(pipe, tokenizer), ids[row], *said)
    index = torch.tensor([[ROLES.index(role) for role in row] for row in gamma])
    return F.one_hot(index, len(ROLES)).double()


def call(pipe, texts, seeds):
    """The pipeline as its user calls it."""
    taken = inspect.signature(type(pipe).__call__).parameters
    off = {"use_resolution_binning": False, "clean_caption": False, "complex_human_instruction": []}
    return pipe(
        prompt=texts, height=SIZE, width=SIZE, num_inference_steps=STEPS,
        guidance_scale=4.5,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        **{name: value for name, value in off.items() if name in taken},
    ).images  # fmt: skip


@pytest.fixture(scope="module")
def plain(pipeline_folder, captions):
    """From the name of a family to a run without us: its images, float64 maps and Gamma."""
    from diffusers import DiffusionPipeline

    done = {}

    def run_of(name):
        if name not in done:
            expected = EXPECTED[name]
            absent = {"text_encoder_3": None, "tokenizer_3": None}
            pipe = DiffusionPipeline.from_pretrained(
                pipeline_folder(name), **(absent if name == "sd3_without_t5" else {})
            )
            pipe.set_progress_bar_config(disable=True)
            heard = listen(pipe, expected.encoders)
            rows = list(captions) * SEEDS
            seeds = [seed for seed in range(SEEDS) for _ in captions]
            with Materialised(pipe.transformer, expected.layers) as materialised:
                images = call(pipe, [text for text, _ in rows], seeds)
            branches = getattr(expected, "branches", ["uncond", "cond"])
            done[name] = SimpleNamespace(
                images=images,
                maps=materialised.maps,
                branches=branches,
                gamma={b: gamma_of(pipe, expected.encoders, heard, rows, b) for b in branches},
            )
        return done[name]

    return run_of


def sketches(name, run, order):
    """Phi^T A Gamma [sample, step, branch, layer, head, role, basis] in float64."""
    side = SIZE // EXPECTED[name].cell
    basis = dct2(side, side, order, dtype=torch.float64)
    text_keys = getattr(EXPECTED[name], "text_keys", slice(None))
    gamma = torch.cat([run.gamma[branch] for branch in run.branches])
    image = slice(None)
    if hasattr(EXPECTED[name], "text_keys"):
        image = slice(0, side**2) if text_keys.start else slice(text_keys.stop, None)
    of_layers = [
        torch.stack(
            [
                torch.einsum("nf,bhnm,bmg->bhgf", basis, each[:, :, image, text_keys], gamma)
                for each in steps
            ]
        )
        for steps in run.maps.values()
    ]
    stacked = torch.stack(of_layers)  # [layer, step, branch * sample, head, role, basis]
    split = stacked.unflatten(2, (len(run.branches), -1))
    return split.permute(3, 1, 2, 0, 4, 5, 6).numpy()


def test_a_scan_has_the_axes_of_its_model(family, stores, captions):
    scan = attnsearch.open_scan(stores(family))
    expected = EXPECTED[family]
    assert scan["branch"].to_numpy().tolist() == getattr(expected, "branches", ["uncond", "cond"])
    assert scan["role"].to_numpy().tolist() == list(ROLES)
    side = SIZE // expected.cell
    assert dict(scan["sketch"].sizes) == {
        "sample": 4, "step": STEPS, "branch": scan.sizes["branch"], "layer": 2,
        "head": getattr(expected, "heads", 2), "role": 7, "basis": min(side, 8) ** 2,
    }  # fmt: skip
    assert scan.attrs["grid"] == [side, side]
    assert scan["prompt"].to_numpy().tolist() == [text for text, _ in captions] * SEEDS
    assert scan["seed"].to_numpy().tolist() == [0, 0, 1, 1]
    assert scan["relation"].to_numpy().tolist() == ["above", "left"] * SEEDS
    assert (np.diff(scan["noise_level"]) < 0).all()


def test_stored_sketches_are_those_of_maps_in_float64(family, stores, plain):
    stored = attnsearch.open_scan(stores(family))
    order = int(stored.sizes["basis"] ** 0.5)
    exact = sketches(family, plain(family), order)
    # Half precision keeps 11 bits of a coefficient, of at most sqrt(N).
    bound = 2**-11 * np.abs(exact) + 1e-4
    assert (np.abs(stored["sketch"].to_numpy() - exact) <= bound).all()
    assert np.abs(exact).max() > 0.5


def test_images_are_those_of_the_pipeline_left_alone(family, stores, plain):
    """Within one level of 255: sketched attention rounds otherwise than the framework's own."""
    thumbnails = attnsearch.open_scan(stores(family))["thumbnail"].to_numpy().astype(int)
    assert thumbnails.std() > 5
    for image, stored in zip(plain(family).images, thumbnails, strict=True):
        assert image.size == (SIZE, SIZE)
        # 128 px of a picture of 64: every pixel twice along either axis.
        assert np.abs(np.asarray(image, dtype=int).repeat(2, 0).repeat(2, 1) - stored).max() <= 1


def test_the_attention_to_text_is_all_there_is_or_what_images_leave(family, stores):
    stored = attnsearch.open_scan(stores(family))
    constant = stored["sketch"].isel(basis=0).to_numpy().astype(float).sum(-1)
    whole = SIZE / EXPECTED[family].cell  # sqrt(N)
    if hasattr(EXPECTED[family], "text_keys"):
        assert (constant < whole).all()
        assert (constant > 0.1 * whole).all()
    else:
        np.testing.assert_allclose(constant, whole, rtol=4e-3)


def test_python_scans_as_the_command_line_does(family, stores, pipeline_folder, prompts, tmp_path):
    attnsearch.scan(
        pipeline_folder(family), tmp_path / "s", prompts=str(prompts), seeds=SEEDS,
        sampler=SamplerConfig(steps=STEPS), reading=Reading(size=SIZE),
    )  # fmt: skip
    assert files(tmp_path / "s") == files(stores(family))


def test_a_sample_does_not_depend_on_its_company(
    family, stores, pipeline_folder, prompts, tmp_path
):
    """Within rounding: products of other shapes add up in another order."""
    result = scan(pipeline_folder(family), tmp_path / "alone", prompts, "--batch", 1)
    assert result.exit_code == 0, result.output
    alone, together = attnsearch.open_scan(tmp_path / "alone"), attnsearch.open_scan(stores(family))
    np.testing.assert_allclose(
        alone["sketch"].to_numpy(), together["sketch"].to_numpy(), rtol=2e-3, atol=1e-4
    )
    pictures = [each["thumbnail"].to_numpy().astype(int) for each in (alone, together)]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
