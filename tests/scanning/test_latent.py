"""A PixArt file from disk to a store, with a VAE and without."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import attnsearch
from attnsearch.cli import app
from attnsearch.models.dit import position_embedding

WIDTH, HEADS, GRID, TEXT, LENGTH = 64, 1, 4, 32, 20
CELL = 8
SIDE = 2 * GRID * CELL
CAPTIONS = ("red square is left of blue circle", "blue triangle is above red square")


def original_weights():
    """The tensors of a model of two layers in the original PixArt-alpha format."""
    linears = {
        "t_embedder.mlp.0": (WIDTH, 256),
        "t_embedder.mlp.2": (WIDTH, WIDTH),
        "t_block.1": (6 * WIDTH, WIDTH),
        "y_embedder.y_proj.fc1": (WIDTH, TEXT),
        "y_embedder.y_proj.fc2": (WIDTH, WIDTH),
        "final_layer.linear": (2 * 4 * 4, WIDTH),
    }
    shapes = {
        "x_embedder.proj.weight": (WIDTH, 4, 2, 2),
        "x_embedder.proj.bias": (WIDTH,),
        "y_embedder.y_embedding": (LENGTH, TEXT),
        "final_layer.scale_shift_table": (2, WIDTH),
    }
    for block in ("blocks.0", "blocks.1"):
        shapes[f"{block}.scale_shift_table"] = (6, WIDTH)
        linears |= {
            f"{block}.attn.qkv": (3 * WIDTH, WIDTH),
            f"{block}.attn.proj": (WIDTH, WIDTH),
            f"{block}.cross_attn.q_linear": (WIDTH, WIDTH),
            f"{block}.cross_attn.kv_linear": (2 * WIDTH, WIDTH),
            f"{block}.cross_attn.proj": (WIDTH, WIDTH),
            f"{block}.mlp.fc1": (2 * WIDTH, WIDTH),
            f"{block}.mlp.fc2": (WIDTH, 2 * WIDTH),
        }
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(shape, generator=generator) / shape[-1] ** 0.5
        for name, shape in shapes.items()
    }
    return {"pos_embed": position_embedding(GRID, WIDTH, 1.0)[None]} | weights


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("pixart") / "epoch_3_step_77.pth"
    torch.save({"state_dict_ema": original_weights()}, path)
    return path


@pytest.fixture(scope="module")
def captions(tmp_path_factory):
    path = tmp_path_factory.mktemp("captions") / "captions.txt"
    path.write_text("\n".join(CAPTIONS))
    return path


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(result):
    assert result.exit_code == 2, (result.output, result.exception)
    (line,) = result.stderr.strip().splitlines()
    return line


def scan(file, store, captions, *words):
    return run(
        "scan", file, "--encoder", "rtep", "--store", store, "--prompts", captions,
        "--steps", 2, "--seeds", 1, "--device", "cpu", *words,
    )  # fmt: skip


@pytest.fixture(scope="module")
def stores(file, captions, save_vae, tmp_path_factory):
    """The same scan with a VAE, by True, and without."""
    root = tmp_path_factory.mktemp("stores")
    save_vae(root / "vae")
    words = {True: ("--vae", root / "vae"), False: ()}
    for decoded, given in words.items():
        result = scan(file, root / f"{decoded}.zarr", captions, *given)
        assert result.exit_code == 0, (result.output, result.exception)
    return {decoded: root / f"{decoded}.zarr" for decoded in words}


def test_with_a_vae_images_are_scored_and_searched_for_objects(stores):
    stored = attnsearch.open_scan(stores[True])
    assert stored["region"].to_numpy().tolist() == ["object1", "object2", "background"]
    assert stored["region_coefficients"].shape == (2, 3, GRID**2)
    assert {"score_shape", "score_relation_strict"} <= set(stored.data_vars)
    assert stored["thumbnail"].shape == (2, SIDE, SIDE, 3)
    assert stored["thumbnail"].to_numpy().std() > 1
    assert "object1 was found in no image" in refused(
        run("ask", stores[True], "object1 -> relation")
    )


def test_without_a_vae_there_are_latents_to_look_at_and_no_scores(stores):
    stored = attnsearch.open_scan(stores[False])
    assert "region" not in stored.dims
    assert "region_coefficients" not in stored
    assert not [name for name in stored.data_vars if name.startswith("score")]
    assert stored["thumbnail"].shape == (2, 2 * GRID, 2 * GRID, 3)
    line = refused(run("ask", stores[False], "object1 -> relation"))
    assert "nothing looked for objects" in line


def test_the_maps_do_not_know_of_the_vae(stores):
    decoded, latent = (attnsearch.open_scan(stores[key]) for key in (True, False))
    for name in ("sketch", "energy", "entropy", "peak"):
        np.testing.assert_array_equal(decoded[name], latent[name])
    assert "vae_sha256" in decoded.attrs
    assert "vae_sha256" not in latent.attrs
    mass = decoded["sketch"].isel(basis=0).astype(float).sum("role")
    np.testing.assert_allclose(mass, GRID, rtol=4e-3)


def test_images_are_what_the_vae_makes_of_the_latents(file, captions, save_vae, tmp_path):
    """Against diffusers' own decoding of latents sampled without a scan."""
    from diffusers import AutoencoderKL

    from attnsearch import encoders
    from attnsearch.encoders import EncoderKind
    from attnsearch.models import load_pixart
    from attnsearch.models.guidance import Conditioning
    from attnsearch.sampling import SamplerConfig, noise_of_seeds, sample
    from attnsearch.task.captions import parse

    save_vae(tmp_path / "vae", shift=0.3)
    assert scan(file, tmp_path / "s", captions, "--vae", tmp_path / "vae").exit_code == 0
    checkpoint = load_pixart(file, encoder=EncoderKind.RTEP)
    model = checkpoint.build()
    text = encoders.build(checkpoint.encoder).encode([parse(caption) for caption in CAPTIONS])
    latents = sample(
        model,
        checkpoint.objective,
        Conditioning.from_text(text, torch.device("cpu")),
        noise_of_seeds([0, 0], model),
        SamplerConfig(steps=2),
    )
    vae = AutoencoderKL.from_pretrained(tmp_path / "vae")
    with torch.no_grad():
        images = vae.decode(latents / vae.config.scaling_factor + 0.3).sample
    expected = ((images.clamp(-1, 1) + 1) / 2 * 255).permute(0, 2, 3, 1).numpy()
    stored = attnsearch.open_scan(tmp_path / "s")["thumbnail"].to_numpy()
    # Rounded to a level, after attention that rounds otherwise.
    assert np.abs(stored - expected).max() < 0.51


@pytest.mark.parametrize(
    ("made", "complaint"),
    [({"blocks": 3}, "4 channels, 4 px a cell"), ({"channels": 8}, "8 channels, 8 px a cell")],
    ids=str,
)
def test_a_vae_of_another_model_is_refused(made, complaint, file, captions, save_vae, tmp_path):
    save_vae(tmp_path / "vae", **made)
    line = refused(scan(file, tmp_path / "s", captions, "--vae", tmp_path / "vae"))
    assert complaint in line
    assert "4 channels of 8 cells for images of 64 px" in line
    assert not (tmp_path / "s").exists()


def test_a_folder_without_a_vae_is_refused(file, captions, tmp_path):
    assert "holds no VAE" in refused(scan(file, tmp_path / "s", captions, "--vae", tmp_path))


def test_a_file_without_a_word_on_its_encoder_is_refused(file, tmp_path):
    line = refused(run("scan", file, "--store", tmp_path / "s"))
    assert "--encoder" in line


def test_info_tells_the_sizes_of_a_pixart_file(file):
    result = run("info", file, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["kind"] == "PixArt checkpoint"
    assert facts["parameters"] == sum(t.numel() for t in original_weights().values())
    sizes = {name.removeprefix("model "): value for name, value in facts.items()}
    expected = {
        "image_side": 2 * GRID, "image_channels": 4, "patch": 2, "depth": 2, "width": WIDTH,
        "heads": HEADS, "mlp_ratio": 2.0, "text_channels": TEXT, "text_length": LENGTH,
    }  # fmt: skip
    assert expected.items() <= sizes.items()
    assert "width" in run("info", file).stdout


def test_info_refuses_a_damaged_pixart_file(file, tmp_path):
    weights = original_weights()
    del weights["pos_embed"]
    torch.save(weights, tmp_path / "m.pth")
    assert "is a damaged PixArt checkpoint: it has no pos_embed" in refused(
        run("info", tmp_path / "m.pth")
    )


def test_a_vae_with_a_gap_is_refused_and_not_filled_at_random(file, captions, save_vae, tmp_path):
    weights = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    save_vae(tmp_path / "vae")
    tensors = load_file(weights)
    del tensors["decoder.conv_in.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    line = refused(scan(file, tmp_path / "s", captions, "--vae", tmp_path / "vae"))
    assert "lacks the weight decoder.conv_in.weight" in line
