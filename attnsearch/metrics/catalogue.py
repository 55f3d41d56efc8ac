"""The metrics, by name. Each makes, of what a reader reads, the evidence that scores come from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import getdoc
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from attnsearch.axes import REGION, RELATION_DIRECTIONS, ROLE
from attnsearch.errors import MetricError
from attnsearch.metrics.evidence import Directed, Evidence, Fixed, Mean, Ramped
from attnsearch.metrics.meaning import token_positions
from attnsearch.metrics.variance import Explained
from attnsearch.plugins import METRIC, loaded, plugins

if TYPE_CHECKING:
    from attnsearch.metrics.reader import Reader

Floats = npt.NDArray[np.float64]

OBJECTS: Final = "which object is which"
MEANING: Final = "what direction words mean"
ALIKE: Final = "which of the two is which"
SIDES: Final = "the sign of what every prompt shows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric and what a list of metrics says of it."""

    of: "Callable[[Reader], Evidence]"
    unit: str
    """Empty: a plain number."""
    low: float
    high: float

    @property
    def summary(self) -> str:
        """The first line of what there is to say."""
        return (getdoc(self.of) or "").partition("\n")[0]


def relational(read: "Reader") -> Evidence:
    """Does the map of the relation words move to where they point?

    D_p = sum_i a_i r_i is the dipole of the attention a to the relation words of prompt p, r_i the
    position of image token i in [-1, 1]^2 (x right, y down), u_p the unit vector of the asked
    relation, from object 2 to object 1. The score is

        mean_p <D_p - mean D, u_p> / kappa(u_p),    kappa(u) = 1/2 sum_i |<r_i, u>|.

    +1: all image tokens on the asked side of the centre attend to nothing but the relation words,
    all others not at all; -1: the same with sides swapped, as in a head that marks object 2. It is
    0 for a head that is uniform, has a spatial bias that does not depend on the relation, or
    attends to other words alike everywhere. Nothing is fitted, so nothing has to be held out.
    After the template d . (X, Y) of arXiv 2601.06338.
    """
    prompts = read.relations()
    known = prompts.relations != ""
    names = [str(name) if name else "above" for name in prompts.relations]
    direction = np.array([RELATION_DIRECTIONS[name] for name in names])
    half = 0.5 * np.abs(token_positions(read.grid) @ direction.T).sum(axis=0)
    return Directed(
        values=_counted(read.dipoles("relation"), known),
        known=known,
        strata=prompts.codes("relation"),
        target=direction / half[:, None],
        words=prompts.presence(),
        shuffled=MEANING,
    )


def relation_variance(read: "Reader") -> Evidence:
    """What share of the map of the relation words does the relation explain?

    Variance over prompts, summed over the coefficients of the map: partial eta squared of the
    relation, SSR / (SSR + SSE), beyond shapes and colours of both objects in a linear model, less
    what chance explains (epsilon squared). The plain one is the variance partition of arXiv
    2601.06338. Up to 1; around 0 where the relation changes nothing. Networks with random weights
    have it too: their words differ. See `relational` for whether the difference is spatial.
    """
    return _explained(read, "relation", ("shape1", "colour1", "shape2", "colour2"))


def ramp_cosine(read: "Reader") -> Evidence:
    """How much has the mean map of a relation the shape of a ramp along it?

    <M_r, T_r> / (|M_r| |T_r|) with M_r the mean map of relation r without its mean over tokens and
    T_r = d . (X, Y); mean over relations. After the screening score of arXiv 2601.06338, on maps
    instead of logits; on logits it is `qk-relational`.
    """
    return _ramped(read, "cosine")


def ramp_projection(read: "Reader") -> Evidence:
    """How much of a ramp along it is there in the mean map of a relation?

    <M_r, T_r> / |T_r| with M_r and T_r as in `ramp-cosine`, mean over relations, up to the root of
    the number of image tokens over 2.
    """
    return _ramped(read, "projection")


def ramp_energy(read: "Reader") -> Evidence:
    """How much structure of any shape is there in the mean map of a relation?

    |M_r| with M_r as in `ramp-cosine`, mean over relations. Noise has it too, so there is no null.
    """
    return _ramped(read, "energy")


def objects(read: "Reader") -> Evidence:
    """Does each object look at its own words rather than the other object's?

    Share of attention of the region of object k to colour k and shape k, less that to colour and
    shape of the other object; mean over both objects, over images in which they were found.
    """
    return _own(read, ("colour", "shape"))


def shape(read: "Reader") -> Evidence:
    """Does each object look at its own shape word rather than the other object's?

    As `object`, shape words only. A head of object 1 and one that binds differ in
    `object1 -> shape1 - object1 -> shape2`.
    """
    return _own(read, ("shape",))


def colour(read: "Reader") -> Evidence:
    """Does each object look at its own colour word rather than the other object's?

    As `object`, colour words only, over prompts that name both colours.
    """
    return _own(read, ("colour",))


def positional(read: "Reader") -> Evidence:
    """How large is the spatial bias that all prompts share?

    sqrt(1/2 sum_g |mean D_g|^2) / kappa with D_g the dipole of the attention to role g and kappa
    1/2 sum_i |x_i|; products of different prompts only, so that chance gives 0. 1: one side of
    the image attends to nothing but one role, the other not at all, whatever the prompt.
    """
    roles = [str(role) for role in read.scan[ROLE].to_numpy()]
    half = 0.5 * np.abs(token_positions(read.grid)[:, 0]).sum()
    values = np.concatenate([read.dipoles(role) for role in roles], axis=-1) / (half * np.sqrt(2))
    return Fixed(
        values=values,
        known=np.ones(len(values), dtype=bool),
        strata=np.zeros(len(values), dtype=np.intp),
        shuffled=SIDES,
    )


def entropy(read: "Reader") -> Evidence:
    """How spread is attention over words, where 1 is all alike?

    Entropy of the rows of the map, mean over image tokens, over the log of the number of keys.
    """
    return _mean(read.stored("entropy") / np.log(read.scan.attrs["keys"]))


def sharpness(read: "Reader") -> Evidence:
    """How much attention does the word that gets most of it get?

    The largest entry of each row of the map, mean over image tokens.
    """
    return _mean(read.stored("peak"))


def qk_relational(read: "Reader") -> Evidence:
    """Do the weights tie image positions to relation words along the relation?

    The logits of positions against relation words are compared with a ramp along the relation; see
    `attnsearch.circuits.screening`. It reads the weights of a model and no maps.
    """
    del read
    raise MetricError(
        f"{FROM_WEIGHTS} reads the weights of models and no maps, so it is ranked by alone"
    )


FROM_WEIGHTS: Final = "qk-relational"
"""The metric that reads weights; all others read maps."""

_OWN: Final[Mapping[str, Metric]] = {
    "relational": Metric(of=relational, unit="", low=-1, high=1),
    "relation-variance": Metric(of=relation_variance, unit="of variance", low=-1, high=1),
    "ramp-cosine": Metric(of=ramp_cosine, unit="", low=-1, high=1),
    "ramp-projection": Metric(of=ramp_projection, unit="attention", low=-np.inf, high=np.inf),
    "ramp-energy": Metric(of=ramp_energy, unit="attention", low=0, high=np.inf),
    "object": Metric(of=objects, unit="of attention", low=-1, high=1),
    "shape": Metric(of=shape, unit="of attention", low=-1, high=1),
    "colour": Metric(of=colour, unit="of attention", low=-1, high=1),
    "positional": Metric(of=positional, unit="", low=-1, high=1),
    "entropy": Metric(of=entropy, unit="of the largest", low=0, high=1),
    "sharpness": Metric(of=sharpness, unit="of attention", low=0, high=1),
    FROM_WEIGHTS: Metric(of=qk_relational, unit="logits", low=-np.inf, high=np.inf),
}


class _Catalogue(Mapping[str, Metric]):
    """Our own metrics, and those of other packages, which are looked for where ours do not do."""

    def __getitem__(self, name: str) -> Metric:
        return _OWN[name] if name in _OWN else loaded(METRIC, name, Metric)

    def __contains__(self, name: object) -> bool:
        return name in _OWN or name in plugins(METRIC)

    def __iter__(self) -> Iterator[str]:
        yield from _OWN
        yield from sorted(plugins(METRIC).keys() - _OWN.keys())

    def __len__(self) -> int:
        return len(_OWN.keys() | plugins(METRIC).keys())


METRICS: Final[Mapping[str, Metric]] = _Catalogue()
"""Metrics by the name the command line knows them under.

Another package adds one through an entry point of the group `attnsearch.metrics` that names a
`Metric`; a name of ours cannot be taken.
"""


def metric(
    *, unit: str = "", low: float = -np.inf, high: float = np.inf
) -> "Callable[[Callable[[Reader], Evidence]], Metric]":
    """Makes a `Metric` of a function from a `Reader` to evidence.

    The first line of its docstring is what lists of metrics say. `low` and `high` are the bounds of
    the score, `unit` what it counts.
    """
    return lambda of: Metric(of=of, unit=unit, low=low, high=high)


def mass(read: "Reader", roles: Sequence[str]) -> Evidence:
    """Share of all attention that roles get, mean over image tokens, in [0, 1].

    Here and below, only prompts that have words of all the roles count.
    """
    return _mean(_where_had(read, roles, read.mass(roles)))


def share(read: "Reader", region: str, roles: Sequence[str]) -> Evidence:
    """m^T A w / m^T 1: attention of a region to roles per unit of region, in [0, 1]."""
    return _mean(_where_had(read, roles, read.region(region, roles)))


def total(read: "Reader", region: str, roles: Sequence[str]) -> Evidence:
    """m^T A w: attention summed over a region, in image tokens, which grows with the object.

    Its mean over images is the synopsis of arXiv 2601.06338, less the images without detections.
    """
    from attnsearch.aggregation import TOTAL  # slow to import, and questions are parsed without

    return _mean(_where_had(read, roles, read.region(region, roles, TOTAL)))


def contrast(read: "Reader", region: str, roles: Sequence[str]) -> Evidence:
    """The share of a region less the mean of the shares of all other regions, in [-1, 1]."""
    others = [str(name) for name in read.scan[REGION].to_numpy()] if REGION in read.scan else []
    values = _where_had(read, roles, read.region(region, roles))
    rest = [read.region(name, roles) for name in others if name != region]
    return _mean(values - np.mean(rest, axis=0) if rest else values, SIDES)


def difference(one: Mean, other: Mean) -> Mean:
    """How much one number is above another, prompt by prompt; the null is that they are alike."""
    known = one.known & other.known
    return Mean(
        values=_counted(one.values - other.values, known),
        known=known,
        strata=one.strata,
        shuffled=one.shuffled if one.shuffled == other.shuffled and one.shuffled else ALIKE,
    )


def _own(read: "Reader", kinds: Sequence[str]) -> Evidence:
    first, second = ([f"{kind}{number}" for kind in kinds] for number in (1, 2))
    parts = [
        read.region("object1", first) - read.region("object1", second),
        read.region("object2", second) - read.region("object2", first),
    ]
    return _mean(_where_had(read, [*first, *second], (parts[0] + parts[1]) / 2), OBJECTS)


def _where_had(read: "Reader", roles: Sequence[str], values: Floats) -> Floats:
    """Numbers [prompt, step, head] about roles, NaN of prompts that lack words of one of them.

    A role that is not there gets no attention, which says nothing of a head.

    Raises:
        MetricError: all prompts lack some.
    """
    having = read.having(roles)
    if not having.any():
        lacking = [role for role in roles if not read.having([role]).any()] or roles
        raise MetricError(
            f"no prompt of {read.model} has words of the role{'s' * (len(lacking) > 1)} "
            f"{' and '.join(lacking)}"
        )
    return np.where(having[:, None, None], values, np.nan)


def _explained(read: "Reader", label: str, others: Sequence[str]) -> Evidence:
    prompts = read.relations()
    known = prompts.columns[label] != ""
    return Explained(
        values=_counted(read.maps(label), known),
        known=known,
        strata=prompts.codes(label),
        signed=False,
        repeats=False,
        label=prompts.codes(label),
        others=np.stack([prompts.codes(name) for name in others], axis=1),
        shuffled=f"the {label}",
    )


def _ramped(read: "Reader", kind: str) -> Evidence:
    prompts = read.relations()
    known = prompts.relations != ""
    names = sorted({str(name) for name in prompts.relations[known]})
    relation = np.array([names.index(name) if name else -1 for name in prompts.relations])
    presence = prompts.presence()
    return Ramped(
        values=_counted(read.maps("relation"), known),
        known=known,
        strata=prompts.codes("relation"),
        signed=kind != "energy",
        shuffled=None if kind == "energy" else MEANING,
        kind=kind,
        ramps=read.ramps(),
        relation=relation,
        directions=np.array([RELATION_DIRECTIONS[name] for name in names]),
        words=np.stack([presence[relation == each].mean(axis=0) for each in range(len(names))]),
    )


def _mean(values: Floats, shuffled: str | None = None) -> Mean:
    """The mean of a number [prompt, step, head], signed where a null shuffles its sign."""
    known = np.asarray(np.isfinite(values).all(axis=(1, 2)))
    return Mean(
        values=_counted(values, known),
        known=known,
        strata=np.zeros(len(values), dtype=np.intp),
        signed=shuffled is not None,
        shuffled=shuffled,
    )


def _counted(values: Floats, known: npt.NDArray[np.bool_]) -> Floats:
    """Zeros where a prompt does not count."""
    return np.where(known.reshape(-1, *[1] * (values.ndim - 1)), values, 0)
