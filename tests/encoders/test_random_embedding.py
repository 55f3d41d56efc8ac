from math import sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnsearch import encoders
from attnsearch.axes import ROLES
from attnsearch.encoders import EncoderKind, EncoderSpec
from attnsearch.encoders.random_embedding import TOKEN_NORM, position_encoding
from attnsearch.errors import CaptionError, ConfigError
from attnsearch.task.captions import PAD, VOCABULARY, grid_captions, parse, token_ids
from attnsearch.task.spec import PRESETS

PAPER_GRID = grid_captions(PRESETS["paper"])
LENGTH = PRESETS["paper"].text_length
CAPTIONS = st.lists(st.sampled_from(PAPER_GRID), min_size=1, max_size=4)


def encoder(kind, *, channels=64, length=LENGTH, seed=42):
    return encoders.build(
        EncoderSpec(kind=EncoderKind(kind), channels=channels, text_length=length, seed=seed)
    )


def vectors_by_token(channels):
    """The vector RTE gives each token, gathered from the captions that use it."""
    embedding = encoder("rte", channels=channels).encode(PAPER_GRID).embedding
    ids = token_ids(PAPER_GRID, LENGTH)
    return {token: embedding[ids == index] for index, token in enumerate(VOCABULARY)}


def test_every_token_has_the_papers_vector_wherever_it_stands():
    table = torch.randn(26, 4096, generator=torch.Generator().manual_seed(42)) / sqrt(4096) * 7.5
    for index, vectors in enumerate(vectors_by_token(4096).values()):
        assert len(vectors)
        assert torch.equal(vectors, table[index].expand_as(vectors))


def test_token_vectors_are_nearly_orthogonal_and_of_length_seven_and_a_half():
    table = torch.stack([vectors[0] for vectors in vectors_by_token(4096).values()])
    cosines = (table @ table.T) / TOKEN_NORM**2
    # At 4096 channels a length varies by 1.1 % and a cosine by 1.6 %; bounds are six deviations.
    assert (cosines.diag().sqrt() - 1).abs().max() < 0.07
    assert (cosines - cosines.diag().diag()).abs().max() < 0.1


@pytest.mark.parametrize("channels", [16, 64, 1024])
def test_narrow_embeddings_keep_the_length_on_average(channels):
    table = torch.stack([vectors[0] for vectors in vectors_by_token(channels).values()])
    mean = float(table.square().sum(1).mean().sqrt())
    assert mean == pytest.approx(TOKEN_NORM, rel=6 / sqrt(2 * 26 * channels))


@given(CAPTIONS)
def test_rtep_is_rte_plus_the_sinusoid_of_the_position(captions):
    plain, placed = (encoder(kind).encode(captions) for kind in ("rte", "rtep"))
    sinusoid = position_encoding(LENGTH, 64).expand_as(plain.embedding)
    torch.testing.assert_close(placed.embedding - plain.embedding, sinusoid, rtol=0, atol=2e-6)
    assert torch.equal(plain.mask, placed.mask)
    assert torch.equal(plain.roles, placed.roles)


@pytest.mark.parametrize("channels", [2, 16, 64, 4096])
def test_a_position_has_length_7_54_at_every_width(channels):
    norms = position_encoding(20, channels).norm(dim=1)
    torch.testing.assert_close(norms, torch.full((20,), sqrt(2048) / 6))
    assert float(norms[0]) == pytest.approx(7.54, abs=0.005)


@pytest.mark.parametrize("position", [0, 1, 7, 19])
def test_sines_and_cosines_alternate_along_the_papers_frequencies(position):
    row = 6 * position_encoding(20, 4096)[position].double()
    angle = torch.tensor([position * 10000 ** (-2 * k / 4096) for k in range(2048)])
    torch.testing.assert_close(row[0::2], angle.double().sin(), rtol=0, atol=1e-5)
    torch.testing.assert_close(row[1::2], angle.double().cos(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "same"), [("rte", True), ("rtep", False)])
def test_only_positions_tell_two_captions_of_the_same_words_apart(kind, same):
    swapped = [parse("red circle is above blue square"), parse("blue square is above red circle")]
    bags = [
        embedding[embedding.norm(dim=1).argsort(), :] for embedding in
        encoder(kind).encode(swapped).embedding
    ]  # fmt: skip
    assert torch.equal(*bags) is same


@given(CAPTIONS, st.sampled_from(["rte", "rtep"]))
def test_a_caption_is_encoded_alike_in_any_company(captions, kind):
    together = encoder(kind).encode(captions)
    for row, caption in enumerate(captions):
        alone = encoder(kind).encode([caption])
        assert all(torch.equal(a[row], b[0]) for a, b in zip(together, alone, strict=True))


@given(CAPTIONS)
def test_every_token_has_one_role_and_a_pad_is_what_the_mask_hides(captions):
    text = encoder("rtep").encode(captions)
    assert set(text.roles.unique().tolist()) == {0.0, 1.0}
    assert (text.roles.sum(-1) == 1).all()
    assert torch.equal(text.roles[..., ROLES.index("pad")] == 0, text.mask)
    assert torch.equal(text.mask, torch.from_numpy(token_ids(captions, LENGTH)) != PAD)
    assert text.embedding.shape == (len(captions), LENGTH, 64)
    assert text.embedding.dtype == text.roles.dtype == torch.float32


def test_another_seed_gives_other_vectors():
    first, second = (encoder("rte", seed=seed).encode(PAPER_GRID[:1]) for seed in (42, 43))
    assert not torch.isclose(first.embedding, second.embedding).all(-1).any()


def test_an_unknown_word_is_named():
    with pytest.raises(CaptionError, match="'crimson'") as caught:
        encoder("rte").encode([parse("crimson circle is above blue square")])
    assert "\n" not in str(caught.value)


def test_a_caption_too_long_for_the_model_is_refused_by_name():
    caption = parse("red circle is diagonally up and left from blue square")
    with pytest.raises(CaptionError, match=r"diagonally.*12 tokens.*reads 11"):
        encoder("rte", length=11).encode([caption])
    assert encoder("rte", length=12).encode([caption]).mask.all()


@pytest.mark.parametrize("wrong", [{"channels": 15}, {"channels": 0}, {"text_length": 0}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ConfigError, match=str(*wrong.values())):
        EncoderSpec(**({"kind": EncoderKind.RTE, "channels": 16, "text_length": 12} | wrong))
