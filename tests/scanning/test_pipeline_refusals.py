"""What a user can do wrong with a pipeline's folder: one line each, and nothing is written."""

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from attnsearch.cli import app

# diffusers turns a tensor into an array in a way NumPy is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FAMILIES = ("pixart", "sana", "hunyuandit", "sd3", "flux")
WEIGHTS = {
    "transformer": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


@pytest.fixture
def copy(pipeline_folder, tmp_path):
    """From the name of a family to a copy of its pipeline, to be spoilt."""

    def copied(name="pixart"):
        return shutil.copytree(pipeline_folder(name), tmp_path / name)

    return copied


@pytest.fixture
def refusal(prompts, tmp_path):
    """The one line with which a scan is refused."""

    def of(folder, *words, given=None, verb="scan"):
        store = tmp_path / "store.zarr"
        settings = ("--size", 64, "--steps", 2, "--device", "cpu", "--store", store)
        asked = ("--prompts", given or prompts)
        options = (*settings, *asked, *words) if verb == "scan" else words
        result = CliRunner().invoke(app, [str(word) for word in (verb, folder, *options)])
        assert result.exit_code == 2, (result.output, result.exception)
        assert result.stdout == ""
        (line,) = result.stderr.strip().splitlines()
        assert line.startswith("attnsearch: ")
        assert not store.exists()
        return line

    return of


def edit(folder, **changes):
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | changes))


def test_a_folder_that_is_none_is_refused(refusal, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "neither a checkpoint file nor a pipeline's folder" in refusal(tmp_path / "empty")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"_class_name": 3}', "\x00\xff"])
def test_a_damaged_index_is_refused(text, copy, refusal):
    folder = copy()
    (folder / "model_index.json").write_text(text, encoding="latin-1")
    assert str(folder) in refusal(folder)


@pytest.mark.parametrize("verb", ["scan", "info"])
@pytest.mark.parametrize("part", WEIGHTS)
@pytest.mark.parametrize("damage", ["cut off", "absent", "incomplete", "nan"])
def test_damaged_weights_are_refused(verb, part, damage, copy, refusal):
    folder = copy()
    path = folder / part / WEIGHTS[part]
    tensors = load_file(path)
    name = sorted(name for name in tensors if name.endswith("weight"))[0]
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:2000])
    elif damage == "absent":
        path.unlink()
    else:
        if damage == "nan":
            tensors[name].view(-1)[0] = torch.nan
        else:
            del tensors[name]
        save_file(tensors, path, metadata={"format": "pt"})
    line = refusal(folder, verb=verb)
    assert str(folder) in line
    if damage in ("incomplete", "nan"):
        assert name in line


@pytest.mark.parametrize("part", ["transformer", "tokenizer", "scheduler", "text_encoder"])
def test_a_part_that_is_missing_is_refused(part, copy, refusal):
    folder = copy()
    shutil.rmtree(folder / part)
    assert f"{folder / part} is missing" in refusal(folder)


def test_a_tokenizer_without_its_files_is_refused(copy, refusal):
    folder = copy()
    for file in (folder / "tokenizer").iterdir():
        file.unlink()
    assert "tokenizer of PixArtAlphaPipeline does not know the letters" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"_class_name": "NoSuchPipeline"}, "NoSuchPipeline"),
        ({"transformer": ["diffusers", "NoSuchTransformer"]}, "NoSuchTransformer cannot be"),
        ({"transformer": ["diffusers", "CogView4Transformer2DModel"]}, "supported: PixArt"),
        ({"_class_name": "StableDiffusionPipeline", "transformer": None}, "no transformer"),
        ({"transformer": ["diffusers", "WanTransformer3DModel"]}, "makes videos"),
        ({"transformer": ["diffusers", "LTXVideoTransformer3DModel"]}, "makes videos"),
        ({"_class_name": "PixArtSigmaPAGPipeline"}, "perturbed attention guidance"),
    ],
)
def test_pipelines_of_other_kinds_are_refused(changes, complaint, copy, refusal):
    folder = copy()
    edit(folder, **changes)
    assert complaint in refusal(folder)


def test_code_in_the_folder_is_not_run(copy, refusal, tmp_path):
    folder = copy()
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n"
    (folder / "evil.py").write_text(code)
    for place in ("scheduler", "text_encoder"):
        (folder / place / "evil.py").write_text(code)
    edit(folder, _class_name=["evil", "Evil"])
    assert "names no pipeline class" in refusal(folder)
    for place in ("scheduler", "text_encoder"):
        edit(folder, _class_name="PixArtAlphaPipeline", **{place: ["evil", "Evil"]})
        assert str(folder) in refusal(folder)
    assert not (tmp_path / "ran").exists()


def test_a_slow_tokenizer_is_refused_by_name(copy, refusal):
    folder = copy()
    transformers.ByT5Tokenizer().save_pretrained(folder / "tokenizer")
    edit(folder, tokenizer=["transformers", "ByT5Tokenizer"])
    assert "ByT5Tokenizer does not tell where its tokens lie" in refusal(folder)


def test_a_tokenizer_that_is_not_the_encoders_is_refused(copy, refusal):
    """One of more tokens than the encoder has embeddings for."""
    folder = copy()
    config = folder / "text_encoder" / "config.json"
    smaller = transformers.T5EncoderModel(
        transformers.T5Config(vocab_size=8, d_model=12, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    )
    config.unlink()
    smaller.save_pretrained(folder / "text_encoder")
    assert "PixArtAlphaPipeline cannot paint a prompt: index out of range" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "room"),
    [("pixart", 120), ("sana", 300), ("hunyuandit", 77), ("sd3", 77), ("flux", 512)],
)
def test_a_prompt_that_is_too_long_is_refused_before_anything_is_written(
    name, room, pipeline_folder, refusal, tmp_path
):
    prompts = tmp_path / "long.txt"
    prompts.write_text("{shape1:circle} " + "zq " * room)
    line = refusal(pipeline_folder(name), given=prompts)
    assert f"the model reads {room}" in line
    assert len(line) < 200


def test_a_letter_that_grows_in_lower_case_is_refused(pipeline_folder, refusal, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("{shape1:İstanbul}")
    assert "changes its length in lower case" in refusal(pipeline_folder("pixart"), given=prompts)


def test_too_many_roles_are_refused(pipeline_folder, refusal, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red square above a blue circle left of the other right one there")
    assert "14 roles" in refusal(pipeline_folder("pixart"), given=prompts)


@pytest.mark.parametrize(
    "words", [("--encoder", "rtep"), ("--vae", "."), ("--encoder", "rtep", "--heads", 2)], ids=str
)
def test_options_of_a_pixart_file_are_refused(words, pipeline_folder, refusal):
    line = refusal(pipeline_folder("pixart"), *words)
    assert "is a pipeline and brings its own encoder and VAE" in line


@pytest.mark.parametrize(
    ("name", "size"),
    # 72 px are whole latent cells of a VAE of 8 px, and no whole tokens of two cells.
    [(name, size) for name in FAMILIES for size in (60, 72)],
)
def test_a_size_that_does_not_fit_is_refused(name, size, pipeline_folder, refusal):
    assert str(size) in refusal(pipeline_folder(name), "--size", size)


def test_an_image_larger_than_the_model_has_positions_for_is_refused(pipeline_folder, refusal):
    line = refusal(pipeline_folder("sd3"), "--size", 256)
    assert "StableDiffusion3Pipeline cannot paint a prompt: Height" in line


def test_an_order_finer_than_the_grid_is_refused(pipeline_folder, refusal):
    line = refusal(pipeline_folder("pixart"), "--basis", 5)
    assert "between 1 and the 4 image tokens" in line
