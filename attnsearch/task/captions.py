"""Captions of two-object scenes: their words, and the role of every token.

The grammar is `[colour1] shape1 is RELATION [colour2] shape2`, after the paper. Tokens are those
the T5 tokenizer makes of it (26 in all, in its order), so that random token embeddings keyed by
token are the paper's; only `diagonally` takes two of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from attnsearch.axes import RELATIONS, ROLES
from attnsearch.errors import CaptionError
from attnsearch.intake import quote
from attnsearch.task.spec import (
    COLOURS,
    NAMINGS,
    OBJECT_PAIRS,
    PHRASES,
    SHAPES,
    PhraseSet,
    TaskSpec,
    held_out_combinations,
)

VOCABULARY: Final = (
    "<pad>", "</s>", "the", "and", "to", "of", "is", "from", "up", "##ly", "than", "right",
    "down", "left", "below", "above", "red", "higher", "lower", "directly", "blue", "square",
    "upper", "circle", "triangle", "diagonal",
)  # fmt: skip
"""Tokens in ascending order of their T5 id; `##ly` continues `diagonal`."""

PAD: Final = VOCABULARY.index("<pad>")
END: Final = VOCABULARY.index("</s>")
_TOKEN_IDS: Final = {token: index for index, token in enumerate(VOCABULARY)}
_SPLIT: Final = {"diagonally": ("diagonal", "##ly")}
DIRECTION_WORDS: Final = frozenset(
    ("above", "below", "left", "right", "upper", "lower", "up", "down", "higher")
)
"""Words of a relation phrase that tell the direction; the others have the role `filler`."""

_RELATION_OF_PHRASE: Final = {
    tuple(phrase.split()): relation for relation, phrases in PHRASES.items() for phrase in phrases
}
_LONGEST_PHRASE: Final = max(map(len, _RELATION_OF_PHRASE))


@dataclass(frozen=True, slots=True)
class Caption:
    """One caption with the objects and the relation it asks for."""

    words: tuple[str, ...]
    roles: tuple[str, ...]
    """One of `axes.ROLES` per word."""
    pair: int
    """Index into `OBJECT_PAIRS`: what to paint; a caption without colour words allows two pairs
    and names the first."""
    relation: str
    colours_named: tuple[bool, bool]

    @property
    def text(self) -> str:
        """The caption as one string."""
        return " ".join(self.words)

    @property
    def direction_words(self) -> tuple[str, ...]:
        """The words with the role `relation`, in order."""
        return tuple(
            word for word, role in zip(self.words, self.roles, strict=True) if role == "relation"
        )


def compose(
    pair: int,
    relation: str,
    phrase: str,
    colours_named: tuple[bool, bool] = (True, True),
) -> Caption:
    """The caption that asks for an object pair in a relation, in the given wording."""
    words: list[str] = []
    roles: list[str] = []
    for index, (colour, shape) in enumerate(OBJECT_PAIRS[pair]):
        if colours_named[index]:
            words.append(colour)
            roles.append(f"colour{index + 1}")
        words.append(shape)
        roles.append(f"shape{index + 1}")
        if index == 0:
            link = ["is", *phrase.split()]
            words.extend(link)
            roles.extend("relation" if word in DIRECTION_WORDS else "filler" for word in link)
    return Caption(tuple(words), tuple(roles), pair, relation, colours_named)


def parse(text: str) -> Caption:
    """The caption written in `text`, which must follow the grammar; letter case is ignored.

    Raises:
        CaptionError: naming the first word that is unknown or out of place.
    """
    words = text.lower().split()
    for word in words:
        if word not in _TOKEN_IDS and word not in _SPLIT:
            known = ", ".join(sorted(known_words()))
            raise CaptionError(f"unknown word {quote(word)} in {quote(text)}; known: {known}")
    rest, first = _take_object(words, text)
    if rest[:1] != ["is"]:
        raise CaptionError(f"expected 'is' after the first shape in {quote(text)}")
    for end in range(min(len(rest), _LONGEST_PHRASE + 1), 1, -1):
        relation = _RELATION_OF_PHRASE.get(tuple(rest[1:end]))
        if relation is None:
            continue
        tail, second = _take_object(rest[end:], text)
        if tail:
            raise CaptionError(f"nothing may follow the second shape in {quote(text)}")
        return compose(
            _pair_index(first, second, text),
            relation,
            " ".join(rest[1:end]),
            (first[0] is not None, second[0] is not None),
        )
    raise CaptionError(f"no known relation phrase after 'is' in {quote(text)}")


def known_words() -> frozenset[str]:
    """Every word a caption may use."""
    pieces = {"<pad>", "</s>", "##ly", "diagonal"}
    return frozenset((_TOKEN_IDS.keys() - pieces) | _SPLIT.keys())


def training_captions(spec: TaskSpec) -> list[Caption]:
    """Every caption the task's training distribution can draw, in a fixed order."""
    return [
        compose(pair, relation, phrase, NAMINGS[naming])
        for pair in range(len(OBJECT_PAIRS))
        for relation in RELATIONS
        for phrase in phrases_of(spec, relation)
        for naming in trained_namings(spec)
    ]


def trained_namings(spec: TaskSpec) -> tuple[str, ...]:
    """The `NAMINGS` that training draws: all of them, or only that of all colours."""
    return tuple(NAMINGS)[: 1 if spec.colour_dropout == 0 else None]


def grid_captions(spec: TaskSpec, naming: str = "all colours") -> list[Caption]:
    """The prompt grid of the task: all object pairs x all relations x all its phrases.

    96 prompts with short phrases, 264 with all of them; half as many where no colour is named,
    since two pairs then have the same text, which is there once.
    """
    found: dict[str, Caption] = {}
    for pair in range(len(OBJECT_PAIRS)):
        for relation in RELATIONS:
            for phrase in phrases_of(spec, relation):
                caption = compose(pair, relation, phrase, NAMINGS[naming])
                found.setdefault(caption.text, caption)
    return list(found.values())


def exam_captions(spec: TaskSpec, *, quick: bool = False) -> list[Caption]:
    """What a model of the task is evaluated on: its prompt grid in every naming that it trains on.

    A quick evaluation has all phrases of a relation with all colours, and only the short one where
    a colour is left out: 504 prompts instead of 924 under the paper's task.
    """
    short = replace(spec, phrases=PhraseSet.SHORT)
    return [
        caption
        for naming in trained_namings(spec)
        for caption in grid_captions(short if quick and not all(NAMINGS[naming]) else spec, naming)
    ]


def possible_pairs(caption: Caption) -> tuple[int, ...]:
    """Indices into `OBJECT_PAIRS` of all pairs that training describes by the caption's text."""
    return tuple(
        index
        for index, pair in enumerate(OBJECT_PAIRS)
        if all(
            shape == wanted_shape and (colour == wanted_colour or not named)
            for (colour, shape), (wanted_colour, wanted_shape), named in zip(
                pair, OBJECT_PAIRS[caption.pair], caption.colours_named, strict=True
            )
        )
    )


def is_held_out(caption: Caption, spec: TaskSpec) -> bool:
    """Whether training never shows what the caption asks for.

    Without colours a caption has the text of two pairs; it is held out only if both are.
    """
    relation = RELATIONS.index(caption.relation)
    held_out = held_out_combinations(spec)
    return all((pair, relation) in held_out for pair in possible_pairs(caption))


def some_captions(spec: TaskSpec, count: int) -> list[Caption]:
    """So many prompts of the grid, or all, drawn at random once and for ever.

    Relations take turns, as long as each has prompts left.
    """
    grid = grid_captions(spec)
    order = np.random.default_rng(0).permutation(len(grid))
    rounds: dict[str, int] = {}
    ranked = []
    for number in order:
        relation = grid[number].relation
        rounds[relation] = rounds.get(relation, -1) + 1
        ranked.append((rounds[relation], grid[number]))
    ranked.sort(key=lambda pair: pair[0])
    return [caption for _, caption in ranked[:count]]


def phrases_of(spec: TaskSpec, relation: str) -> tuple[str, ...]:
    """The wordings of a relation that the task uses."""
    return PHRASES[relation][:1] if spec.phrases is PhraseSet.SHORT else PHRASES[relation]


def token_ids(captions: Sequence[Caption], length: int) -> npt.NDArray[np.int64]:
    """Token ids [caption, token], closed by `</s>` and padded.

    Raises:
        CaptionError: a caption needs more than `length` tokens.
    """
    ids = np.full((len(captions), length), PAD, dtype=np.int64)
    for row, caption in enumerate(captions):
        pieces = [piece for word in caption.words for piece in _SPLIT.get(word, (word,))]
        check_fits(caption, len(pieces) + 1, length)
        ids[row, : len(pieces)] = [_TOKEN_IDS[piece] for piece in pieces]
        ids[row, len(pieces)] = END
    return ids


def token_count(caption: Caption) -> int:
    """Tokens of a caption, the closing `</s>` included."""
    return sum(len(_SPLIT.get(word, (word,))) for word in caption.words) + 1


def role_matrix(captions: Sequence[Caption], length: int) -> npt.NDArray[np.float32]:
    """Gamma [caption, token, role]: one-hot rows, one role per token; pads have the role `pad`."""
    index = np.full((len(captions), length), ROLES.index("pad"))
    for row, caption in enumerate(captions):
        roles = [
            role
            for word, role in zip(caption.words, caption.roles, strict=True)
            for _ in _SPLIT.get(word, (word,))
        ]
        check_fits(caption, len(roles) + 1, length)
        index[row, : len(roles)] = [ROLES.index(role) for role in roles]
        index[row, len(roles)] = ROLES.index("end")
    return np.eye(len(ROLES), dtype=np.float32)[index]


def check_fits(caption: Caption, needed: int, length: int) -> None:
    """Refuse a caption that needs more tokens than the model reads.

    Raises:
        CaptionError: naming both numbers.
    """
    if needed > length:
        raise CaptionError(f"{caption.text!r} needs {needed} tokens, the model reads {length}")


def _take_object(words: list[str], text: str) -> tuple[list[str], tuple[str | None, str]]:
    colour = words[0] if words and words[0] in COLOURS else None
    rest = words[1:] if colour else words
    if not rest or rest[0] not in SHAPES:
        found = quote(rest[0]) if rest else "the end"
        raise CaptionError(
            f"expected one of {', '.join(SHAPES)} but found {found} in {quote(text)}"
        )
    return rest[1:], (colour, rest[0])


def _pair_index(first: tuple[str | None, str], second: tuple[str | None, str], text: str) -> int:
    for index, pair in enumerate(OBJECT_PAIRS):
        if all(
            shape == wanted[1] and colour in (None, wanted[0])
            for wanted, (colour, shape) in zip(pair, (first, second), strict=True)
        ):
            return index
    raise CaptionError(f"the two objects must differ in colour and in shape: {quote(text)}")
