"""Captions of the two-object task go the way of every other prompt."""

from itertools import pairwise

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceTrainer
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from attnsearch.axes import ROLES
from attnsearch.encoders import EncoderKind
from attnsearch.encoders.source import find_source
from attnsearch.prompts import (
    coordinates_of,
    parse_template,
    prompt_of_caption,
    roles_of,
    token_roles,
)
from attnsearch.task.captions import grid_captions, training_captions
from attnsearch.task.spec import OBJECT_PAIRS, PRESETS

EVERY = training_captions(PRESETS["paper"])
GRID = grid_captions(PRESETS["paper"])


def t5(folder):
    """A SentencePiece tokenizer of so few pieces that words fall apart."""
    SentencePieceTrainer.train(
        sentence_iterator=iter([caption.text for caption in GRID]),
        model_prefix=str(folder / "spiece"),
        vocab_size=40,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        minloglevel=2,
    )  # fmt: skip
    transformers.T5Config(vocab_size=64, d_model=8, num_layers=1).save_pretrained(folder)
    return find_source(EncoderKind.T5, str(folder)).tokenizer()


def clip(folder):
    """A WordPiece tokenizer that splits words and adds a token on either side."""
    words = {word for caption in GRID for word in caption.words}
    specials = ["<pad>", "<unk>", "<s>", "</s>"]
    pieces = sorted({word[:3] for word in words} | {f"##{word[3:]}" for word in words if word[3:]})
    vocabulary = {piece: index for index, piece in enumerate(specials + pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>",
        eos_token="</s>",
    )  # fmt: skip


def minilm(_):
    return find_source(EncoderKind.MINILM, "").tokenizer()


def roles_by_word(caption, offsets, special, attended):
    """The role of the word that a token begins in, the blank before a word being part of it."""
    role_at = []
    for word, role in zip(caption.words, caption.roles, strict=True):
        role_at += [role] * (len(word) + bool(role_at))
    roles = [
        "pad" if not seen else "end" if added else role_at[start]
        for (start, _), added, seen in zip(offsets, special, attended, strict=True)
    ]
    return [ROLES.index(role) for role in roles]


@pytest.mark.parametrize("make", [t5, clip, minilm])
def test_tokens_of_a_caption_have_the_roles_of_their_words(make, tmp_path):
    tokenizer = make(tmp_path)
    split = 0
    for caption in EVERY[::5]:
        row = tokenizer(
            caption.text, padding="max_length", max_length=60, padding_side="right",
            return_attention_mask=True, return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )  # fmt: skip
        tokens = (row["offset_mapping"], row["special_tokens_mask"], row["attention_mask"])
        expected = roles_by_word(caption, *tokens)
        assert token_roles(prompt_of_caption(caption), ROLES, *tokens) == expected
        split = max(split, sum(tokens[2]) - len(caption.words))
    assert split > 1


@settings(deadline=None)
@given(st.sampled_from(EVERY), st.data())
def test_words_split_in_any_way_keep_their_roles(caption, data):
    offsets = []
    start = 0
    for word in caption.words:
        cuts = data.draw(st.sets(st.integers(start - bool(start), start + len(word) - 1)))
        bounds = sorted({*cuts, start, start + len(word)})
        if start - 1 in cuts and data.draw(st.booleans()):
            bounds.remove(start)  # a piece that begins with the blank
        offsets += pairwise(bounds)
        start += len(word) + 1
    tokens = (offsets, [0] * len(offsets), [1] * len(offsets))
    assert token_roles(prompt_of_caption(caption), ROLES, *tokens) == roles_by_word(
        caption, *tokens
    )


def test_the_roles_of_the_grid_are_those_of_the_task():
    assert roles_of([prompt_of_caption(caption) for caption in GRID]) == ROLES


def test_a_caption_written_with_marks_is_the_same_prompt():
    for caption in GRID:
        marked = [
            word if role == "filler" else f"{{{role}:{word}}}"
            for word, role in zip(caption.words, caption.roles, strict=True)
        ]
        assert parse_template(" ".join(marked)) == prompt_of_caption(caption)


def test_the_columns_are_those_a_scan_of_captions_stores():
    columns = coordinates_of([prompt_of_caption(caption) for caption in EVERY])
    assert columns["relation"] == [caption.relation for caption in EVERY]
    assert columns["relation_words"] == [" ".join(caption.direction_words) for caption in EVERY]
    for index in range(2):
        pairs = [OBJECT_PAIRS[caption.pair][index] for caption in EVERY]
        said = [caption.colours_named[index] for caption in EVERY]
        assert columns[f"shape{index + 1}"] == [shape for _, shape in pairs]
        assert columns[f"colour{index + 1}"] == [
            colour if named else "" for (colour, _), named in zip(pairs, said, strict=True)
        ]
    assert len(columns) == 6
