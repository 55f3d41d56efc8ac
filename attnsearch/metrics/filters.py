"""Which samples count: conditions on what is known of them.

    condition := conjunction ("or" conjunction)*
    conjunction := negation ("and" negation)*
    negation  := "not" negation | "(" condition ")" | comparison
    comparison := name ("==" | "!=" | "<" | "<=" | ">" | ">=") value
               | name ["not"] "in" "[" value ("," value)* "]"

Names are coordinates of samples and scores of images; values are words, texts in quotation marks,
or numbers.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from attnsearch.axes import SAMPLE
from attnsearch.metrics.language import Token, Words

Flags = npt.NDArray[np.bool_]

_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TRUTH: Final = {"true": True, "false": False}


def matching(scan: xr.Dataset, text: str) -> Flags:
    """[sample] whether a condition holds.

    Raises:
        MetricError: it is none, or is about what the scan does not have; the message points at it.
    """
    words = Words.of(text)
    found = _condition(words, scan)
    if words.here.kind != "end":
        raise words.unexpected("'and', 'or' or the end")
    return found


def _condition(words: Words, scan: xr.Dataset) -> Flags:
    found = _conjunction(words, scan)
    while words.sees("or"):
        words.take()
        found = found | _conjunction(words, scan)
    return found


def _conjunction(words: Words, scan: xr.Dataset) -> Flags:
    found = _negation(words, scan)
    while words.sees("and"):
        words.take()
        found = found & _negation(words, scan)
    return found


def _negation(words: Words, scan: xr.Dataset) -> Flags:
    if words.sees("not"):
        words.take()
        words.deeper()
        return ~_negation(words, scan)
    if words.sees("("):
        words.take()
        words.deeper()
        found = _condition(words, scan)
        words.expect(")")
        words.depth -= 1
        return found
    return _comparison(words, scan)


def _comparison(words: Words, scan: xr.Dataset) -> Flags:
    token = words.name("a name such as relation")
    column = _column(words, scan, token)
    if words.sees("in", "not"):
        inverted = words.expect("in", "not").text == "not"
        if inverted:
            words.expect("in")
        words.expect("[")
        values = [_value(words, column)]
        while words.sees(","):
            words.take()
            values.append(_value(words, column))
        words.expect("]")
        found = np.logical_or.reduce([column == value for value in values])
        return ~found if inverted else found
    sign = words.expect(*_COMPARISONS, "in", "not")
    value = _value(words, column)
    return np.asarray(_COMPARISONS[sign.text](column, value), dtype=bool)


def _column(words: Words, scan: xr.Dataset, token: Token) -> npt.NDArray[Any]:
    """What the scan has of every sample under a name; texts as objects."""
    columns = {str(name) for name, each in scan.variables.items() if each.dims == (SAMPLE,)}
    if token.text not in columns:
        known = ", ".join(sorted(columns))
        raise words.complain(f"unknown name {token.text!r}; known: {known};", token)
    column = scan[token.text].to_numpy()
    return column if column.dtype.kind in "biuf" else column.astype(object)


def _value(words: Words, column: npt.NDArray[Any]) -> Any:
    """A value of the type of a column."""
    negative = words.sees("-") and words.after.kind == "number"
    if negative:
        words.take()
    token = words.take()
    if token.kind not in ("name", "text", "number"):
        words.next -= token.kind != "end"
        raise words.unexpected("a value")
    if column.dtype.kind == "b":
        if token.text not in _TRUTH:
            raise words.complain(f"expected true or false, found {token.text!r}", token)
        return _TRUTH[token.text]
    if column.dtype.kind in "iuf":
        if token.kind != "number":
            raise words.complain(f"expected a number, found {token.text!r}", token)
        return -float(token.text) if negative else float(token.text)
    return token.text
