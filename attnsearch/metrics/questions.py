"""Questions about heads: metrics, templates `region -> role`, and arithmetic on them.

    question  := product (("+" | "-") product)*
    product   := factor (("*" | "/") factor)*
    factor    := "-" factor | number | "(" question ")" | "abs" "(" question ")"
               | ("share" | "total" | "contrast") "(" template ")" | "mass" "(" roles ")"
               | template | name of a metric
    template  := region "->" roles
    roles     := role ("+" role)*

Regions and roles with other characters than letters and digits stand in quotation marks.

A `+` after a template belongs to its roles unless what follows it is a template, a number, a
parenthesis or a function.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from attnsearch.errors import MetricError
from attnsearch.metrics import catalogue
from attnsearch.metrics.evidence import Combined, Evidence, Mean
from attnsearch.metrics.language import Words

if TYPE_CHECKING:
    from attnsearch.metrics.reader import Reader

Floats = npt.NDArray[np.float64]


class Question(Protocol):
    """Something that is asked about every head of a scan."""

    def evidence(self, read: "Reader") -> Evidence:
        """What a scan says to it.

        Raises:
            MetricError: the scan lacks what it needs.
        """


@dataclass(frozen=True, slots=True)
class Template:
    """A region of the image and the roles it is asked about."""

    region: str
    roles: tuple[str, ...]
    kind: str = "share"
    """`share`, `total` or `contrast`."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The template written as `region -> role` or `region -> role+role`.

        Raises:
            MetricError: it is not of that form.
        """
        region, arrow, roles = (part.strip() for part in text.partition("->"))
        names = tuple(role.strip() for role in roles.split("+"))
        if not arrow or not all((region, *names)):
            raise MetricError(
                f"{text!r} is not a template; write for example 'object1 -> relation'"
            )
        return cls(region, names)

    def evidence(self, read: "Reader") -> Evidence:
        """See `Question`."""
        return _TEMPLATES[self.kind](read, self.region, self.roles)

    def __str__(self) -> str:
        return f"{self.region} -> {'+'.join(self.roles)}"


@dataclass(frozen=True, slots=True)
class _Named:
    name: str

    def evidence(self, read: "Reader") -> Evidence:
        return catalogue.METRICS[self.name].of(read)


@dataclass(frozen=True, slots=True)
class _Mass:
    roles: tuple[str, ...]

    def evidence(self, read: "Reader") -> Evidence:
        return catalogue.mass(read, self.roles)


@dataclass(frozen=True, slots=True)
class _Arithmetic:
    """Work on the scores of some questions."""

    work: Callable[..., Floats]
    parts: tuple[Question, ...]

    def evidence(self, read: "Reader") -> Evidence:
        parts = tuple(part.evidence(read) for part in self.parts)
        match parts:
            case (Mean() as one, Mean() as other) if self.work is np.subtract:
                return catalogue.difference(one, other)
        return Combined(work=self.work, parts=parts, signed=self.work is not np.abs)


@dataclass(frozen=True, slots=True)
class _Number:
    """Stands in arithmetic only, where it is folded into the work."""

    value: float

    def evidence(self, read: "Reader") -> Evidence:
        del read
        raise MetricError("a number alone says nothing about heads")


_TEMPLATES: Final[Mapping[str, Callable[..., Evidence]]] = {
    "share": catalogue.share,
    "total": catalogue.total,
    "contrast": catalogue.contrast,
}
_OPERATORS: Final[Mapping[str, Callable[..., Floats]]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
}
_FUNCTIONS: Final = ("abs", "mass", *_TEMPLATES)


def parse(text: str) -> Question:
    """The question that a text asks.

    Raises:
        MetricError: it asks none; the message points at the character that is wrong.
    """
    words = Words.of(text)
    question = _question(words)
    if words.here.kind != "end":
        raise words.unexpected("the end or an operator")
    if isinstance(question, _Number):
        raise MetricError(f"{text!r} is a number and says nothing about heads")
    return question


def _question(words: Words) -> Question:
    left = _product(words)
    while words.sees("+", "-"):
        left = _combined(words.take().text, left, _product(words))
    return left


def _product(words: Words) -> Question:
    left = _factor(words)
    while words.sees("*", "/"):
        left = _combined(words.take().text, left, _factor(words))
    return left


def _factor(words: Words) -> Question:
    if words.sees("-"):
        words.take()
        words.deeper()
        return _combined("-", _Number(0), _factor(words))
    if words.here.kind == "number":
        return _Number(float(words.take().text))
    if words.sees("("):
        return _parenthesis(words)
    if words.here.kind == "text":
        return _template(words, words.take().text)
    token = words.name("a metric, a template, a number or '('")
    if words.sees("->"):
        return _template(words, token.text)
    if words.sees("(") and token.text in _FUNCTIONS:
        return _function(words, token.text)
    if token.text in catalogue.METRICS:
        return _Named(token.text)
    known = ", ".join(sorted(catalogue.METRICS))
    raise words.complain(
        f"unknown metric {token.text!r}; known: {known}, and templates such as "
        "'object1 -> relation';",
        token,
    )


def _function(words: Words, name: str) -> Question:
    if name == "abs":
        inside = _parenthesis(words)
        if isinstance(inside, _Number):
            return _Number(abs(inside.value))
        return _Arithmetic(np.abs, (inside,))
    words.expect("(")
    question: Question
    if name == "mass":
        question = _Mass(_roles(words))
    else:
        template = _template(words, words.label("a region").text)
        question = Template(template.region, template.roles, name)
    words.expect(")")
    return question


def _parenthesis(words: Words) -> Question:
    words.expect("(")
    words.deeper()
    inside = _question(words)
    words.expect(")")
    words.depth -= 1
    return inside


def _template(words: Words, region: str) -> Template:
    words.expect("->")
    return Template(region, _roles(words))


def _roles(words: Words) -> tuple[str, ...]:
    roles = [words.label("a role").text]
    while words.sees("+"):
        following = words.tokens[words.next + 1 : words.next + 3]
        if following[0].kind in ("number", "sign") or following[-1].text in ("->", "("):
            break
        words.take()
        roles.append(words.label("a role").text)
    return tuple(roles)


def _combined(sign: str, left: Question, right: Question) -> Question:
    work = _OPERATORS[sign]
    if isinstance(left, _Number) and isinstance(right, _Number):
        if sign == "/" and not right.value:
            raise MetricError("a question divides by zero")
        return _Number(float(work(left.value, right.value)))
    if isinstance(left, _Number):
        return _Arithmetic(_From(work, left.value), (right,))
    if isinstance(right, _Number):
        return _Arithmetic(_By(work, right.value), (left,))
    return _Arithmetic(work, (left, right))


@dataclass(frozen=True, slots=True)
class _From:
    """Work on a number and a score."""

    work: Callable[..., Floats]
    value: float

    def __call__(self, scores: Floats) -> Floats:
        return self.work(self.value, scores)


@dataclass(frozen=True, slots=True)
class _By:
    """Work on a score and a number."""

    work: Callable[..., Floats]
    value: float

    def __call__(self, scores: Floats) -> Floats:
        return self.work(scores, self.value)
