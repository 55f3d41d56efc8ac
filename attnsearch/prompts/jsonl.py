"""One prompt as a line of JSON.

    {"text": "a square above ...", "roles": {"shape1": [[2, 8]]}, "attributes": {"source": "me"}}

A role is a list of places: `[start, end]`, half-open, in Unicode code points (not bytes, nor the
UTF-16 units of JavaScript), or a word of the text. Without `roles` every word has one of its own;
with `"roles": {}` none has. The words of a role become an attribute as in the template language;
what `attributes` says goes before.
"""

import json
import re
from reprlib import repr as short
from typing import Any, NoReturn

from attnsearch.errors import PromptError
from attnsearch.prompts.prompt import Prompt, Span
from attnsearch.prompts.relations import attributes_of
from attnsearch.prompts.template import spans_of_words

_KEYS = ("text", "roles", "attributes")


def parse_json(line: str) -> Prompt:
    """The prompt a line describes.

    Raises:
        PromptError: it is not JSON, a key is unknown, missing or twice there, a value has another
            type, a word is not in the text or more than once, or they do not make a `Prompt`.
    """
    values = _dictionary(_load(line), "a line")
    if unknown := next((key for key in values if key not in _KEYS), None):
        raise PromptError(f"key {short(unknown)} is unknown; known are {', '.join(_KEYS)}")
    if "text" not in values:
        raise PromptError('the key "text" is missing')
    text = _string(values["text"], "text")
    given = {
        name: _string(value, f"attribute {short(name)}")
        for name, value in _dictionary(values.get("attributes", {}), "attributes").items()
    }
    if "roles" not in values:
        return Prompt(text=text, spans=spans_of_words(text), attributes=given)
    spans = {
        role: _spans(text, role, places)
        for role, places in _dictionary(values["roles"], "roles").items()
    }
    return Prompt(text=text, spans=spans, attributes=attributes_of(text, spans) | given)


def _load(line: str) -> Any:
    try:
        return json.loads(line, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise PromptError(f"not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise PromptError("not a prompt: brackets are nested too deeply") from error
    except ValueError as error:  # Python's own limit, whose message tells how to lift it
        raise PromptError("not a prompt: an integer has thousands of digits") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise PromptError(f"key {short(key)} is there twice")
        values[key] = value
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise PromptError(f"not JSON: {name} is no number of JSON")


def _spans(text: str, role: str, places: Any) -> tuple[Span, ...]:
    if not isinstance(places, list):
        raise PromptError(f"role {short(role)} must be a list of places, not {short(places)}")
    return tuple(sorted(_span(text, role, place) for place in places))


def _span(text: str, role: str, place: Any) -> Span:
    if isinstance(place, str):
        return _find_word(text, role, place)
    # bool is an int to Python, not to JSON.
    if isinstance(place, list) and [type(bound) for bound in place] == [int, int]:
        return place[0], place[1]
    raise PromptError(
        f"a place of role {short(role)} is [start, end] or a word of the text, not {short(place)}"
    )


def _find_word(text: str, role: str, word: str) -> Span:
    # No letter or digit may touch the word. The lookahead finds overlapping places as well.
    whole = re.compile(rf"(?<![^\W_])(?={re.escape(word)}(?![^\W_]))")
    found = [match.start() for match in whole.finditer(text)] if word else []
    if len(found) == 1:
        return found[0], found[0] + len(word)
    count = f"{len(found)} times" if found else "not as a whole word"
    raise PromptError(
        f"role {short(role)}: {short(word)} is {count} in {short(text)}; "
        "give its place as [start, end]"
    )


def _dictionary(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PromptError(f"{what} must be a JSON object, not {short(value)}")
    return value


def _string(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise PromptError(f"{what} must be a string, not {short(value)}")
    return value
