"""What one call must compute and move at least. Pure functions of the shape; nothing is run."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class CallShape:
    """The sizes of one `sketch_attention` call."""

    batch: int
    """B, batch rows."""
    heads: int
    """H."""
    tokens: int
    """N, image tokens (queries)."""
    keys: int
    """M, text tokens."""
    channels: int
    """D, per head."""
    roles: int
    """G."""
    basis: int
    """F, basis columns."""

    def __post_init__(self) -> None:
        for field in fields(self):
            size = getattr(self, field.name)
            if size < 0:
                raise ValueError(f"{field.name} = {size} is negative")

    @property
    def maps(self) -> int:
        """B H, the maps of the call."""
        return self.batch * self.heads


def attention_flops(shape: CallShape) -> int:
    """Operations of the two matrix products of plain attention: `4 B H N M D`.

    A multiply-add counts as two. The softmax (about five operations per map entry) is left out,
    as is customary.
    """
    return 4 * shape.maps * shape.tokens * shape.keys * shape.channels


def sketch_flops(shape: CallShape) -> int:
    """Operations the sketch adds: `2 B H N G (M + F)`, roles first, then the basis.

    Relative to attention `G (M + F) / (2 M D)`. Basis first would be `2 B H M F (N + G)`.
    """
    return 2 * shape.maps * shape.tokens * shape.roles * (shape.keys + shape.basis)


def bytes_moved(shape: CallShape, *, itemsize: int) -> int:
    """Bytes a call must read and write at least: every input and every result once.

    `itemsize B H D (2 N + 2 M)` for query, output, key and value; four bytes for each of the
    `B M G + N F` entries of roles and basis and of the `B H (F G + 2 N + G)` statistics; one byte
    for each of the `B M` mask entries. The map, `B H N M` entries, is not among them.

    Args:
        shape: sizes of the call.
        itemsize: bytes per element of the query.
    """
    attention = shape.maps * shape.channels * 2 * (shape.tokens + shape.keys)
    constants = shape.batch * shape.keys * shape.roles + shape.tokens * shape.basis
    statistics = shape.maps * (shape.roles * (shape.basis + 1) + 2 * shape.tokens)
    return itemsize * attention + 4 * (constants + statistics) + shape.batch * shape.keys
