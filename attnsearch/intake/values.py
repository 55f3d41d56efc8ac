"""Values of any type and size: refusing them, and quoting them in a message.

Only what is wrong with a value by itself; which values go together is for their owners to say.
"""

from dataclasses import fields
from math import isfinite
from reprlib import Repr
from typing import TYPE_CHECKING, Any, Final, get_args

from attnsearch.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LONGEST: Final = 1000
"""Characters of a message; a path has 255 at least between two slashes."""

_TEXT: Final = 4096
"""Characters of a text; of a path on Linux."""
_WORDS: Final = {int: "a whole number", float: "a number", str: "text"}

_short: Final = Repr()
_short.maxstring = 80
_short.maxother = 80


def check_fields(config: "DataclassInstance", **most: float) -> None:
    """Refuse a field that has another type than declared, is not finite, or above its limit.

    An int may stand for a float, a bool for neither. `most` are the limits by field. Whatever has
    none is kept within 64 bits or 4096 characters.

    Raises:
        ConfigError: naming the field.
    """
    for field in fields(config):
        name, value = field.name, getattr(config, field.name)
        if not _is_of(value, field.type):
            known = next((word for kind, word in _WORDS.items() if kind is field.type), None)
            word = known or str(field.type)
            raise ConfigError(f"{name} must be {word}, not {quote(value)}")
        if isinstance(value, float) and not isfinite(value):
            raise ConfigError(f"{name} must be a finite number, not {value}")
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise ConfigError(f"{name} must fit 64 bits, not {quote(value)}")
        if isinstance(value, str) and (len(value) > _TEXT or "\0" in value):
            raise ConfigError(f"{name} must be a text of some {_TEXT} letters, not {quote(value)}")
        if name in most and value > most[name]:
            raise ConfigError(f"{name} must be at most {most[name]:,}, not {quote(value)}")


def quote(value: object) -> str:
    """A value as Python writes it, cut to a few words."""
    try:
        return one_line(_short.repr(value), 200)
    except ValueError:  # Python writes no integer of thousands of digits
        return "a number of thousands of digits"


def one_line(text: str, longest: int = LONGEST) -> str:
    """A text in one line of printable characters, its middle cut out where it is longer.

    Bytes that a file smuggles into a message must not command the terminal that shows it.
    """
    if len(text) > 2 * longest:
        text = f"{text[:longest]} {text[-longest:]}"
    line = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in " ".join(text.split())
    )
    if len(line) <= longest:
        return line
    return f"{line[: longest * 3 // 4]} ... {line[5 - longest // 4 :]}"


def _is_of(value: Any, kind: Any) -> bool:
    kinds = get_args(kind) or (kind,)
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, (*kinds, int) if float in kinds else kinds)
