"""One prompt as a line of plain text: `a {colour1:red} {shape1:square} is {relation:above} ...`.

`{role:words}` marks the words with a role; `{{` and `}}` are braces of the text, which marked
words cannot hold. A line without any mark has one role per word.
"""

import re
import unicodedata
from collections import Counter
from typing import Final

from attnsearch.errors import PromptError
from attnsearch.prompts.prompt import RESERVED_ROLES, Prompt, Span
from attnsearch.prompts.relations import attributes_of

_BRACES: Final = re.compile(r"\{\{|\}\}|\{(?P<role>[^{}:]*):(?P<words>[^{}]*)\}|[{}]")
_NAME_LENGTH: Final = 40


def parse_template(line: str) -> Prompt:
    """The prompt a line describes; its roles' words become its attributes.

    A line without marks has no attributes: its roles are its words.

    Raises:
        PromptError: a brace stands alone, or the marks do not make a `Prompt`.
    """
    text = ""
    spans: dict[str, list[Span]] = {}
    done = 0
    for match in _BRACES.finditer(line):
        text += line[done : match.start()]
        done = match.end()
        if match["role"] is not None:
            words = match["words"]
            spans.setdefault(match["role"], []).append((len(text), len(text) + len(words)))
            text += words
        elif len(match[0]) == 2:
            text += match[0][0]
        else:
            raise PromptError(
                f"the brace at column {match.start() + 1} is not part of a mark such as "
                "{shape1:square}; write {{ or }} for a brace of the text"
            )
    text += line[done:]
    if not spans:
        return Prompt(text=text, spans=spans_of_words(text))
    marked = {role: tuple(places) for role, places in spans.items()}
    return Prompt(text=text, spans=marked, attributes=attributes_of(text, marked))


def spans_of_words(text: str) -> dict[str, tuple[Span, ...]]:
    """One role per word, called after it: `the`, and `the_2` when the word comes again.

    Words are separated by blanks; punctuation around a word is filler. A name keeps the Latin
    letters, without accents, and the digits, 40 at most; where that leaves no letter to begin with
    it is put after `word`. The names of the reserved roles count as used: the first "end" is
    `end_2`.
    """
    seen = Counter(RESERVED_ROLES)
    spans: dict[str, tuple[Span, ...]] = {}
    for match in re.finditer(r"\S+", text):
        start, end = match.span()
        while start < end and _is_punctuation(text[start]):
            start += 1
        while start < end and _is_punctuation(text[end - 1]):
            end -= 1
        if start == end:
            continue
        name = _name_of(text[start:end])
        seen[name] += 1
        spans[name if seen[name] == 1 else f"{name}_{seen[name]}"] = ((start, end),)
    return spans


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"


def _name_of(word: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "", unicodedata.normalize("NFKD", word.casefold()))
    return (name if name[:1].isalpha() else f"word{name}")[:_NAME_LENGTH]
