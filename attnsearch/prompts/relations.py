"""What marked words say: the attributes that a prompt has from its roles."""

import re
from collections.abc import Mapping
from typing import Final

from attnsearch.prompts.prompt import Span
from attnsearch.task.captions import DIRECTION_WORDS
from attnsearch.task.spec import PHRASES

_SYNONYMS: Final = {
    "above": ("on top of",),
    "below": ("under", "underneath", "beneath"),
}
_SILENT: Final = frozenset(
    word for phrases in PHRASES.values() for phrase in phrases for word in phrase.split()
) - DIRECTION_WORDS | {"is", "on"}  # fmt: skip
"""Words that do not change which relation a phrase names."""


def relation_named(words: str) -> str | None:
    """The one of `axes.RELATIONS` that a phrase names, or None.

    Known are the task's phrases, the names themselves, "on top of", "under", "underneath" and
    "beneath". Letter case, punctuation and the words between do not matter: "left", "Upper-left",
    "to the left of". Anything else names nothing, so that "right above" is not taken for a
    diagonal.
    """
    return _RELATION_OF.get(_telling(words))


def attributes_of(text: str, spans: Mapping[str, tuple[Span, ...]]) -> dict[str, str]:
    """Every role's words joined by blanks.

    The role `relation` gives `relation_words`, in lower case, and `relation` where
    `relation_named` knows them.
    """
    attributes = {
        role: " ".join(word for start, end in sorted(marked) for word in text[start:end].split())
        for role, marked in spans.items()
    }
    if "relation" in attributes:
        words = attributes.pop("relation").lower()
        attributes["relation_words"] = words
        if relation := relation_named(words):
            attributes["relation"] = relation
    return attributes


def _telling(words: str) -> tuple[str, ...]:
    return tuple(word for word in re.findall(r"[^\W_]+", words.lower()) if word not in _SILENT)


_RELATION_OF: Final = {
    _telling(phrase): relation
    for relation, phrases in PHRASES.items()
    for phrase in (*phrases, *_SYNONYMS.get(relation, ()))
}
