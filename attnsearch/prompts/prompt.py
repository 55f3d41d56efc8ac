"""A prompt with roles, and what the prompts of one scan have in common.

Characters are counted as Unicode code points, as Python and the tokenizers library count them.
How prompts are written in files is the business of `template` and `jsonl`; which tokens a role
covers, of `tokens`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from reprlib import repr as short
from typing import Final

from attnsearch.axes import REGION, RELATIONS, SKETCH_AXES
from attnsearch.errors import PromptError

Span = tuple[int, int]
"""Half-open range of characters."""

FILLER: Final = "filler"
END: Final = "end"
PAD: Final = "pad"
RESERVED_ROLES: Final = (FILLER, END, PAD)
"""What no span covers, what is added around a prompt, and padding: the last roles of a scan."""

MAX_ROLES: Final = 16
"""Roles of a scan, the reserved ones included: the Triton kernels take no more."""

MAX_ATTRIBUTES: Final = 64
"""Attributes of a scan, each of which is a column over all its samples."""

SCAN_NAMES: Final = frozenset(
    (
        *SKETCH_AXES, REGION, "prompt", "seed", "timestep", "noise_level", "held_out", "kx", "ky",
        "x", "y", "rgb", "sketch", "energy", "entropy", "peak", "region_coefficients", "thumbnail",
        "score_shape", "score_colour", "score_binding", "score_relation_strict",
        "score_relation_loose", "flagged",
    )
)  # fmt: skip
"""Names that a scan gives to arrays of its own; no attribute may be called so."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One text, the spans of its roles, and attributes that become coordinates of a scan.

    The role of what no span covers is `filler`. It is never given, so that there is one way to
    write a prompt.

    Raises:
        PromptError: a name is malformed or reserved, a span is empty, blank, outside the text or
            overlaps another, or `relation` is none of `axes.RELATIONS`.
    """

    text: str
    spans: Mapping[str, tuple[Span, ...]]
    """By role."""
    attributes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise PromptError("the text is empty")
        for value in (self.text, *self.attributes.values()):
            _check_unicode(value)
        for role, spans in self.spans.items():
            _check_role(role)
            if not spans:
                raise PromptError(f"role {role} marks nothing; leave it out")
            for span in spans:
                self._check_span(role, span)
        self._check_disjoint()
        for name, value in self.attributes.items():
            _check_attribute(name, value)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that have spans, in the order in which the text comes to them."""
        return tuple(sorted(self.spans, key=lambda role: min(self.spans[role])))

    def _check_span(self, role: str, span: Span) -> None:
        start, end = span
        if not 0 <= start < end <= len(self.text):
            raise PromptError(
                f"span {short([start, end])} of role {role} is not a non-empty range within the "
                f"{len(self.text)} characters of {short(self.text)}"
            )
        if self.text[start:end].isspace():
            raise PromptError(f"span {[start, end]} of role {role} covers nothing but blanks")

    def _check_disjoint(self) -> None:
        ordered = sorted((span, role) for role, spans in self.spans.items() for span in spans)
        for (first, role), (second, other) in pairwise(ordered):
            if second[0] < first[1]:
                raise PromptError(
                    f"span {list(first)} of role {role} overlaps span {list(second)} of role "
                    f"{other}; a character has one role"
                )


def check_distinct(prompts: Sequence[Prompt]) -> None:
    """Refuse a text with two meanings: statistics are by prompt, and a prompt is its text.

    Raises:
        PromptError: naming the text.
    """
    first: dict[str, Prompt] = {}
    for prompt in prompts:
        if first.setdefault(prompt.text, prompt) != prompt:
            raise PromptError(
                f"the prompt {short(prompt.text)} is there twice with other roles or attributes; "
                "take them apart"
            )


def roles_of(prompts: Sequence[Prompt]) -> tuple[str, ...]:
    """The roles of a scan: those of its prompts by first appearance, then filler, end and pad.

    Raises:
        PromptError: they are more than `MAX_ROLES`.
    """
    own = tuple(dict.fromkeys(role for prompt in prompts for role in prompt.roles))
    most = MAX_ROLES - len(RESERVED_ROLES)
    if len(own) > most:
        raise PromptError(
            f"the prompts have {len(own)} roles ({', '.join(own[:most])}, ...) and a scan has room "
            f"for {most} beside {', '.join(RESERVED_ROLES)}; every word of a prompt without marks "
            "is a role of its own, so mark the words you will ask about, as in {shape1:square}"
        )
    return own + RESERVED_ROLES


def coordinates_of(prompts: Sequence[Prompt]) -> dict[str, list[str]]:
    """The attributes as columns, one value per prompt, empty where a prompt does not have it.

    Raises:
        PromptError: they are more than `MAX_ATTRIBUTES`.
    """
    names = tuple(dict.fromkeys(name for prompt in prompts for name in prompt.attributes))
    if len(names) > MAX_ATTRIBUTES:
        raise PromptError(
            f"the prompts have {len(names)} attributes ({', '.join(names[:8])}, ...), more than "
            f"the {MAX_ATTRIBUTES} a scan keeps; leave some out"
        )
    return {name: [prompt.attributes.get(name, "") for prompt in prompts] for name in names}


def _check_role(role: str) -> None:
    if not _NAME.fullmatch(role):
        raise PromptError(
            f"{short(role)} is not the name of a role; write a lower-case letter, then up to 63 "
            "lower-case letters, digits or _"
        )
    if role in (END, PAD):
        raise PromptError(
            f"role {role} is for tokens that are no part of a text; call it otherwise"
        )
    if role == FILLER:
        raise PromptError(f"role {FILLER} is what no other role covers; leave it unmarked")


def _check_attribute(name: str, value: str) -> None:
    if not _NAME.fullmatch(name):
        raise PromptError(
            f"{short(name)} is not the name of an attribute; write a lower-case letter, then up to "
            "63 lower-case letters, digits or _"
        )
    if name in SCAN_NAMES:
        raise PromptError(f"the scan itself stores {name}; call the role or attribute otherwise")
    if name == "relation" and value not in RELATIONS:
        raise PromptError(f"relation {short(value)} is none of {', '.join(RELATIONS)}")


def _check_unicode(value: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(
            f"character {error.start} of {short(value)} is half a surrogate pair"
        ) from error
