"""Which role a sub-word token has, read from where it lies in the caption.

Pure arithmetic on character offsets; no tokenizer is called here.
"""

from collections.abc import Sequence

from attnsearch.axes import ROLES
from attnsearch.task.captions import Caption


def token_roles(
    caption: Caption,
    offsets: Sequence[tuple[int, int]],
    special: Sequence[int],
    attended: Sequence[int],
) -> list[int]:
    """Index into `ROLES` per token of a tokenised caption.

    `offsets` are the half-open character spans of the tokens in `caption.text`; `special` is 1 on
    what the tokenizer adds, `attended` is 0 on padding. A token has the role of the word it is a
    piece of, so that all pieces of a word share the word's role. A token that begins with the
    blank before a word, as SentencePiece's may, is a piece of that word. What the tokenizer adds
    around the caption has the role `end`, like the `</s>` of the random embeddings.
    """
    role_at: list[int] = []
    for word, role in zip(caption.words, caption.roles, strict=True):
        # The blank before a word belongs to it; every word but the first has one.
        role_at += [ROLES.index(role)] * (len(word) + bool(role_at))
    return [
        ROLES.index("pad") if not seen
        else ROLES.index("end") if added
        else role_at[start]
        for (start, _), added, seen in zip(offsets, special, attended, strict=True)
    ]  # fmt: skip
