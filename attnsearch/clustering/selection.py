"""Scans by what their models are, and how families spread over them."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

import xarray as xr
from scipy.stats import hypergeom

from attnsearch.errors import MetricError
from attnsearch.intake import quote

_FACTS: Final = ("encoder", "objective", "attention", "model_class")


def facts(name: str, scan: xr.Dataset) -> dict[str, str]:
    """What a scan says of its model: its name, encoder, objective and the fields of its network."""
    stated = {fact: str(scan.attrs[fact]) for fact in _FACTS if fact in scan.attrs}
    network = scan.attrs.get("model")
    fields = network.items() if isinstance(network, Mapping) else ()
    return {"name": name, **stated, **{str(field): str(value) for field, value in fields}}


def within(scans: Mapping[str, xr.Dataset], conditions: Sequence[str]) -> dict[str, xr.Dataset]:
    """The scans that meet every condition, written `encoder=rtep` or `name=rtep-*`.

    Raises:
        MetricError: a condition is not written so, is of what no scan says, or none is left.
    """
    kept = dict(scans)
    known = {name: facts(name, scan) for name, scan in scans.items()}
    for condition in conditions:
        fact, equals, pattern = condition.partition("=")
        said = sorted({key for stated in known.values() for key in stated})
        if not equals or fact not in said:
            raise MetricError(
                f"{quote(condition)} is no condition; write {', '.join(said)} = what it is"
            )
        kept = {
            name: scan
            for name, scan in kept.items()
            if fnmatchcase(known[name].get(fact, ""), pattern)
        }
    if not kept:
        raise MetricError(f"no scan has {' and '.join(conditions)}")
    return kept


def concentration(covered: int, of_kind: int, kind: int, models: int) -> float:
    """Chance that so many or more of a family's models are of one kind.

    `covered` models have the family, `of_kind` of them among the `kind` ones of this kind, of
    `models` in all; had kind and family nothing to do with each other (hypergeometric).
    """
    return float(hypergeom.sf(of_kind - 1, models, kind, covered))
