"""Other ways to say a caption, which no model was trained on unless its task has them.

After the robustness checks of arXiv 2601.06338: a word more, a word less, another order, another
phrase for the relation; what is asked for stays the same. And captions that leave out colours,
which ask for less.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final

from attnsearch.task.captions import Caption, grid_captions, trained_namings
from attnsearch.task.spec import NAMINGS, PhraseSet, TaskSpec

_Words = tuple[tuple[str, str], ...]
"""Words and their roles."""


def wordings(spec: TaskSpec) -> dict[str, list[Caption]]:
    """The prompt grid as it is and in every other wording, by name; then without colours.

    Grids that leave out colours come in other wordings too, if the task's training draws them.
    Wordings that the task has itself are left out.
    """
    trained = trained_namings(spec)
    known = {caption.text for naming in trained for caption in grid_captions(spec, naming)}
    found: dict[str, list[Caption]] = {}
    for naming, named in NAMINGS.items():
        grid = grid_captions(spec, naming)
        found["as trained" if all(named) else naming] = grid
        if naming not in trained:
            continue
        for name, captions in _others(spec, naming, grid):
            if new := [caption for caption in captions if caption.text not in known]:
                found[name if all(named) else f"{name}, {naming}"] = new
    return found


def _others(
    spec: TaskSpec, naming: str, grid: list[Caption]
) -> Iterator[tuple[str, list[Caption]]]:
    for name, how in _CHANGES.items():
        yield name, [_changed(each, how) for each in grid]
    yield "other phrases", grid_captions(replace(spec, phrases=PhraseSet.ALL), naming)


def _changed(caption: Caption, how: Callable[[_Words], Iterable[tuple[str, str]]]) -> Caption:
    words, roles = zip(*how(tuple(zip(caption.words, caption.roles, strict=True))), strict=True)
    return replace(caption, words=words, roles=roles)


def _article(number: int) -> Callable[[_Words], _Words]:
    """`the` before an object, whose first word is its colour or, where none is named, its shape."""

    def add(words: _Words) -> _Words:
        own = {f"colour{number}", f"shape{number}"}
        at = next(at for at, (_, role) in enumerate(words) if role in own)
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
    "the before object 1": _article(1),
    "the before object 2": _article(2),
    "without is": _without_is,
    "directly": _directly,
    "object 2 first": _reversed,
}
