"""Other ways to say a caption, which no model was trained on unless its task has them.

After the robustness checks of arXiv 2601.06338: a word more, a word less, another order, another
phrase for the relation. What is asked for stays the same.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from attnsearch.task.captions import Caption, compose, grid_captions
from attnsearch.task.spec import OBJECT_PAIRS, PHRASES, TaskSpec

_Words = tuple[tuple[str, str], ...]
"""Words and their roles."""


def wordings(spec: TaskSpec) -> dict[str, list[Caption]]:
    """The prompt grid as it is and in every other wording, by name.

    A wording that the task has itself is left out.
    """
    grid = grid_captions(spec)
    found = {name: [_changed(each, how) for each in grid] for name, how in _CHANGES.items()}
    found["other phrases"] = [
        compose(pair, relation, phrase)
        for pair in range(len(OBJECT_PAIRS))
        for relation, phrases in PHRASES.items()
        for phrase in phrases
    ]
    trained = {caption.text for caption in grid}
    for name, captions in found.items():
        found[name] = [caption for caption in captions if caption.text not in trained]
    return {"as trained": grid} | {name: captions for name, captions in found.items() if captions}


def _changed(caption: Caption, how: Callable[[_Words], Iterable[tuple[str, str]]]) -> Caption:
    words, roles = zip(*how(tuple(zip(caption.words, caption.roles, strict=True))), strict=True)
    return replace(caption, words=words, roles=roles)


def _article(before: str) -> Callable[[_Words], _Words]:
    """`the` before the object whose first word has this role."""

    def add(words: _Words) -> _Words:
        at = [role for _, role in words].index(before)
        return (*words[:at], ("the", "filler"), *words[at:])

    return add


def _without_is(words: _Words) -> _Words:
    return tuple(pair for pair in words if pair[0] != "is")


def _directly(words: _Words) -> _Words:
    at = [word for word, _ in words].index("is") + 1
    if words[at][0] == "directly":
        return words
    return (*words[:at], ("directly", "filler"), *words[at:])


def _reversed(words: _Words) -> _Words:
    """`left of blue circle is red square`, for a red square left of a blue circle."""
    at = [word for word, _ in words].index("is")
    return (*words[at + 1 :], words[at], *words[:at])


_CHANGES: Final = {
    "the before object 1": _article("colour1"),
    "the before object 2": _article("colour2"),
    "without is": _without_is,
    "directly": _directly,
    "object 2 first": _reversed,
}
