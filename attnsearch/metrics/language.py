"""The words of a question, and complaints that point at the one that is wrong."""

import re
from dataclasses import dataclass, field
from typing import Final

from attnsearch.errors import MetricError

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][+-]?\d+)?)(?![\w.])"
    r"|(?P<name>[^\W\d]\w*(?:-[^\W\d]\w*)*)"
    r"|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<sign>->|==|!=|<=|>=|[-+*/()\[\],<>]))"
)
MAX_LENGTH: Final = 2_000
"""Characters of a question."""
MAX_DEPTH: Final = 50
"""Of parentheses within each other."""


@dataclass(frozen=True, slots=True)
class Token:
    """A word, a number, a text without its quotation marks or a sign; the last one is empty."""

    kind: str
    text: str
    at: int
    """Characters before it."""


@dataclass(slots=True)
class Words:
    """The tokens of a text, read from left to right."""

    text: str
    tokens: list[Token]
    next: int = field(default=0, init=False)
    depth: int = field(default=0, init=False)

    @classmethod
    def of(cls, text: str) -> "Words":
        """The tokens of a text.

        Raises:
            MetricError: there is a character that none begins with, or too many characters.
        """
        if len(text) > MAX_LENGTH:
            raise MetricError(
                f"a question has at most {MAX_LENGTH:,} characters, not {len(text):,}"
            )
        tokens, at = [], 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None:
                at += len(text[at:]) - len(text[at:].lstrip())
                raise complaint(text, at, f"cannot read {text[at]!r}")
            kind = str(match.lastgroup)
            found = match[kind][1:-1] if kind == "text" else match[kind]
            tokens.append(Token(kind, found, match.start(kind)))
            at = match.end()
        return cls(text, [*tokens, Token("end", "", len(text.rstrip()))])

    @property
    def here(self) -> Token:
        """The token that comes next."""
        return self.tokens[self.next]

    @property
    def after(self) -> Token:
        """The one after it."""
        return self.tokens[min(self.next + 1, len(self.tokens) - 1)]

    def take(self) -> Token:
        """The token that comes next, which is done with then."""
        token = self.here
        self.next += token.kind != "end"
        return token

    def sees(self, *texts: str) -> bool:
        """Whether a sign or word comes next; words in quotation marks are none."""
        return self.here.kind in ("sign", "name") and self.here.text in texts

    def expect(self, *texts: str) -> Token:
        """One of these, which comes next.

        Raises:
            MetricError: something else does.
        """
        if not self.sees(*texts):
            raise self.unexpected(" or ".join(repr(text) for text in texts))
        return self.take()

    def name(self, what: str) -> Token:
        """A word, which comes next; raises as `expect` does."""
        if self.here.kind != "name":
            raise self.unexpected(what)
        return self.take()

    def label(self, what: str) -> Token:
        """A word, or any text in quotation marks, which comes next; raises as `expect` does."""
        if self.here.kind not in ("name", "text"):
            raise self.unexpected(what)
        return self.take()

    def deeper(self) -> None:
        """Go into a parenthesis.

        Raises:
            MetricError: there are too many within each other.
        """
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.complain("parentheses are too deep", self.here)

    def unexpected(self, wanted: str) -> MetricError:
        """A complaint that something else was expected next."""
        found = repr(self.here.text) if self.here.text else "nothing"
        return self.complain(f"expected {wanted}, found {found}", self.here)

    def complain(self, message: str, token: Token) -> MetricError:
        """A complaint about a token."""
        return complaint(self.text, token.at, message)


def complaint(text: str, at: int, message: str) -> MetricError:
    """A complaint that shows where in a text its cause is."""
    return MetricError(f"{message} at character {at + 1}: {text[:at]}<here>{text[at:]}")
