"""Folders of pipelines, VAEs and text encoders from anyone. Loading is slow, so there are few."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from budget import examples
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from attnsearch.encoders import EncoderKind
from attnsearch.models import DiT, save_checkpoint

# diffusers turns a tensor into an array in a way NumPy is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FEW = examples(8, deep=120)
TABLES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/tokenizer_config.json",
    "transformer/config.json",
    "vae/config.json",
)
BYTES = (
    *TABLES,
    "tokenizer/tokenizer.json",
    "text_encoder/model.safetensors",
    "transformer/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
)
NAMES = (
    "pixart", "../pixart", "/etc", "transformers", "torch", "os", "sys", "diffusers", "AutoModel",
    "PixArtTransformer2DModel", "AutoencoderKL", "T5EncoderModel", "T5Tokenizer", "logging",
    "DDIMScheduler", "evil", "stable_diffusion", "builtins", "attnsearch", "pipeline", "utils",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def good(tiny_pipelines, tmp_path_factory):
    """Pipelines of two families, saved."""
    folder = tmp_path_factory.mktemp("good")
    for name in ("pixart", "sd3"):
        tiny_pipelines.save(tiny_pipelines.FAMILIES[name](), folder / name)
    return folder


@pytest.fixture(scope="module")
def copy(good, place):
    """A copy of a pipeline to be spoilt, with code in it that marks that it ran."""
    code = f"open({str(place / 'ran')!r}, 'w')\nclass Evil: pass\n"

    def copied(name: str = "pixart") -> Path:
        shutil.rmtree(place)
        shutil.copytree(good / name, place / name)
        for folder in (place / name, *(path for path in (place / name).iterdir() if path.is_dir())):
            for module in ("evil", "pipeline"):
                (folder / f"{module}.py").write_text(code)
        return place / name

    return copied


@pytest.fixture(scope="module")
def look(lawful):
    """Describes a pipeline, or plans a scan of it; nothing is painted and nothing of it is run."""

    def at(folder: Path, *, plan: bool = False):
        place = folder.parent
        options = ("--dry-run", "--store", place / "s.zarr", "--seeds", 1, "--steps", 2)
        result = lawful(place, *(("scan", folder, *options) if plan else ("info", folder)))
        assert not (place / "ran").exists()
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attnsearch.scanning.estimate_seconds", lambda *_: 0.0)
        yield at


@pytest.mark.parametrize("plan", [False, True])
@pytest.mark.parametrize("name", ["pixart", "sd3"])
def test_a_pipeline_as_it_should_be_is_read(look, copy, name, plan):
    assert look(copy(name), plan=plan).exit_code == 0


@given(data=st.data())
@FEW
def test_other_values_in_a_pipeline(look, spoilt, copy, data):
    folder = copy(data.draw(st.sampled_from(["pixart", "sd3"])))
    path = folder / data.draw(st.sampled_from(TABLES))
    path.write_text(json.dumps(data.draw(spoilt(json.loads(path.read_text())))))
    look(folder, plan=data.draw(st.booleans()))


@given(data=st.data())
@FEW
def test_damaged_bytes_of_a_pipeline(look, damaged, copy, data):
    folder = copy()
    path = folder / data.draw(st.sampled_from(BYTES))
    path.write_bytes(data.draw(damaged(path.read_bytes(), ((0, 8), (8, 600)))))
    look(folder)


@given(data=st.data())
@FEW
def test_other_names_in_an_index(look, copy, data):
    folder = copy()
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    part = data.draw(st.sampled_from([*index, "../pixart", "/etc", "\x1b[2J", "safety_checker"]))
    entry = st.lists(st.sampled_from([*NAMES, None]), min_size=2, max_size=2)
    index[part] = data.draw(entry | st.sampled_from(NAMES))
    path.write_text(json.dumps(index))
    look(folder)


INDEX = {
    "transformer": (["evil", "Evil"], "names the class evil.Evil for the part transformer"),
    "scheduler": (["os", "system"], "names the class os.system for the part scheduler"),
    "tokenizer": (["attnsearch.models", "DiT"], "names the class attnsearch.models.DiT"),
    "vae": (["transformers", "AutoModel"], "transformers has no model AutoModel"),
    "text_encoder": (["transformers", "T5Tokenizer"], "transformers has no model T5Tokenizer"),
    "../pixart/vae": (["diffusers", "AutoencoderKL"], "which is no plain name"),
    "/etc": (["diffusers", "AutoencoderKL"], "which is no plain name"),
    "x\x1b[2J": (["diffusers", "AutoencoderKL"], "which is no plain name"),
    "text_encoder_2": ([], "names no class for the part text_encoder_2"),
    "text_encoder_3": (["diffusers"], "names no class for the part text_encoder_3"),
    "text_encoder_4": ([None, "x"], "names no class for the part text_encoder_4"),
    "text_encoder_5": (["diffusers", "a.b"], "names the class diffusers.a.b"),
}


@pytest.mark.parametrize("part", INDEX)
def test_nothing_is_imported_or_left_because_an_index_says_so(refused, copy, part):
    entry, reason = INDEX[part]
    folder = copy()
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {part: entry}))
    assert reason in refused(folder.parent, "info", folder)
    assert not (folder.parent / "ran").exists()


ABSURD = {
    ("transformer/config.json", "num_layers"): (10**7, "far larger than its files"),
    ("transformer/config.json", "num_attention_heads"): (10**6, "far larger than its files"),
    ("transformer/config.json", "sample_size"): (4096, "far larger than its files"),
    ("transformer/config.json", "caption_channels"): (10**8, "far larger than its files"),
    ("vae/config.json", "latent_channels"): (10**7, "far larger than its files"),
    ("vae/config.json", "layers_per_block"): (10**7, "far larger than its files"),
    ("text_encoder/config.json", "num_layers"): (10**7, "far larger than its files"),
    ("text_encoder/config.json", "vocab_size"): (10**8, "far larger than its files"),
    ("text_encoder/config.json", "d_model"): (10**9, "d_model is 1000000000, more than"),
    ("scheduler/scheduler_config.json", "num_train_timesteps"): (10**8, "more than 100,000"),
    ("tokenizer/tokenizer_config.json", "extra_ids"): (10**8, "more than 10,000"),
}


@pytest.mark.parametrize(("name", "key"), ABSURD, ids=str)
def test_a_configuration_larger_than_its_weights_is_refused(refused, copy, name, key):
    value, reason = ABSURD[name, key]
    folder = copy()
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    assert reason in refused(folder.parent, "info", folder)


def test_code_that_passes_for_no_custom_pipeline_is_refused(refused, copy):
    folder = copy()
    (folder / "evil.py").rename(folder / "None.py")
    assert "None.py is code" in refused(folder.parent, "info", folder)
    assert not (folder.parent / "ran").exists()


@pytest.mark.parametrize("name", ["pixart", "sd3"])
def test_a_transformer_without_layers_is_refused(refused, copy, name):
    folder = copy(name)
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_layers": 0}))
    assert "in this configuration attends to no text" in refused(folder.parent, "info", folder)


def test_a_tokenizer_that_pads_without_end_is_refused(refused, copy):
    folder = copy("sd3")
    path = folder / "tokenizer" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 10**6}))
    assert "pads a prompt to 1000000 tokens" in refused(folder.parent, "info", folder)


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_pickled_weights_are_read_if_they_are_weights_alone(lawful, refused, copy, part):
    folder = copy()
    prefix = "" if part == "text_encoder" else "diffusion_pytorch_"
    safe = folder / part / f"{prefix}model.safetensors"
    pickled = folder / part / f"{prefix or 'pytorch_'}model.bin"
    weights = load_file(safe)
    safe.unlink()
    torch.save(weights, pickled)
    assert lawful(folder.parent, "info", folder).exit_code == 0
    torch.save(weights | {"extra": Hostile(folder.parent / "ran")}, pickled)
    assert f"{pickled} cannot be used: it names " in refused(folder.parent, "info", folder)
    name = next(iter(weights))
    torch.save(weights | {name: torch.zeros(()).expand(10**12)}, pickled)
    assert "larger than its storage" in refused(folder.parent, "info", folder)
    assert not (folder.parent / "ran").exists()


@pytest.fixture(scope="module")
def latent(tiny_checkpoint, tmp_path_factory):
    """A checkpoint that paints latents for a VAE of 8 pixels a cell."""
    model = replace(tiny_checkpoint.model, image_channels=4, image_side=4, patch=2)
    average = DiT(model).state_dict()
    path = tmp_path_factory.mktemp("latent") / "model.pt"
    save_checkpoint(replace(tiny_checkpoint, model=model, weights={}, average=average), path)
    return path


@pytest.mark.parametrize("key", ["scaling_factor", "shift_factor"])
@pytest.mark.parametrize("value", ["0.5", [1], True, float("nan"), float("inf"), 0])
def test_the_scale_of_a_vae_is_a_number(refused, lawful, good, latent, place, key, value):
    shutil.rmtree(place)
    folder = shutil.copytree(good / "pixart" / "vae", place / "vae")
    config = json.loads((folder / "config.json").read_text()) | {key: value}
    (folder / "config.json").write_text(json.dumps(config))
    words = ("scan", latent, "--vae", folder, "--dry-run", "--store", place / "s.zarr")
    if (key, value) == ("shift_factor", 0):
        assert lawful(place, *words, "--seeds", 1, "--steps", 2).exit_code == 0
    else:
        assert f"{key} of the VAE in {folder} is " in refused(place, *words)


@given(data=st.data())
@FEW
def test_other_values_and_bytes_in_a_vae(lawful, spoilt, damaged, good, latent, place, data):
    shutil.rmtree(place)
    folder = shutil.copytree(good / "pixart" / "vae", place / "vae")
    config, weights = folder / "config.json", folder / "diffusion_pytorch_model.safetensors"
    if data.draw(st.booleans()):
        config.write_text(json.dumps(data.draw(spoilt(json.loads(config.read_text())))))
    else:
        weights.write_bytes(data.draw(damaged(weights.read_bytes(), ((0, 8), (8, 600)))))
    words = ("--dry-run", "--store", place / "s.zarr", "--seeds", 1, "--steps", 2, "--batch", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attnsearch.scanning.estimate_seconds", lambda *_: 0.0)
        lawful(place, "scan", latent, "--vae", folder, *words)


@pytest.fixture(scope="module")
def encoded(tiny_pipelines, tmp_path_factory):
    """A T5 encoder with its tokenizer."""
    folder = tmp_path_factory.mktemp("encoder")
    tiny_pipelines.save_model(tiny_pipelines.t5_encoder(16), folder / "t5")
    tiny_pipelines.t5_tokenizer().save_pretrained(folder / "t5")
    return folder / "t5"


T5 = ("config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors")


@given(data=st.data())
@FEW
def test_other_files_of_an_encoder(lawful, spoilt, damaged, encoded, tiny_checkpoint, place, data):
    name = data.draw(st.sampled_from(T5))
    shutil.rmtree(place)
    folder = shutil.copytree(encoded, place / "t5")
    whole = (folder / name).read_bytes()
    content = damaged(whole, ((0, 8), (8, 600)))
    if name.endswith("config.json"):
        content |= spoilt(json.loads(whole)).map(lambda table: json.dumps(table).encode())
    (folder / name).write_bytes(data.draw(content))
    spec = replace(tiny_checkpoint.encoder, kind=EncoderKind.T5, source=str(folder), text_length=64)
    model = replace(tiny_checkpoint.model, text_length=64)
    average = tiny_checkpoint.average | {"null_embedding": torch.zeros(64, 16)}
    path = place / "model.pt"
    save_checkpoint(
        replace(tiny_checkpoint, encoder=spec, model=model, weights={}, average=average), path
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place.parent / "cache"))
        lawful(place, "rank", path, "--metric", "qk-relational")
    shutil.rmtree(place.parent / "cache", ignore_errors=True)
