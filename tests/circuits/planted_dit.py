"""A DiT whose weights are written by hand: a relational head, an object head that reads its tag.

It paints object 1 at one of eight sites around the middle of the canvas and object 2 opposite:

- `PLACE` (L0H0) copies the relation words to every image token, from which the MLP of its block
  tells which tokens the axis of the relation passes through: where something is painted. It does
  not tell the ends apart.
- `RELATIONAL` (L1H2) looks for a relation word where that word points to, along a ramp across the
  canvas, and writes a tag there: +1 where object 1 goes, `UNTAGGED` elsewhere.
- `OBJECT` (L2H1) copies shape and colour: of object 1 where it reads the tag, else of object 2.
  Without a tag at all, the end that object 1 goes to is the same for every caption of an axis.
- The MLP of the last block paints the shape, in its colour, where something is painted.

All other heads have random weights and write to channels that nobody reads. Features are
orthonormal directions of the residual stream, away from what positions take up. Layer norms are
all but linear because one direction carries a constant much longer than all else; time enters by
the last scale alone, which turns the painted image into a velocity, (noisy - painted) / time.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from attnsearch import encoders
from attnsearch.axes import RELATION_DIRECTIONS, HeadAddress, Site
from attnsearch.encoders import EncoderKind, EncoderSpec
from attnsearch.models import Checkpoint, DiT, DiTConfig, Objective
from attnsearch.models.dit import timestep_embedding
from attnsearch.task.captions import VOCABULARY, grid_captions, token_ids
from attnsearch.task.scenes import COLOUR_RGB, coverage
from attnsearch.task.spec import COLOURS, SHAPES, Layout, PhraseSet, TaskSpec

PLACE: Final = HeadAddress(0, 0)
RELATIONAL: Final = HeadAddress(1, 2)
OBJECT: Final = HeadAddress(2, 1)
UNTAGGED: Final = -5 / 3
"""Makes the mean tag over the eight relations nearly zero: five sites in eight are tagged."""
STEPS: Final = (1, 2, 4, 14)
"""Numbers of sampling steps it can be sampled in."""

TASK: Final = TaskSpec(
    canvas=48,
    radius=6,
    axis_tolerance=2,
    layout=Layout.BALANCED,
    min_distance=1.0,
    phrases=PhraseSet.SHORT,
    colour_dropout=0.0,
    text_length=12,
    held_out_seed=None,
)
_SITE: Final = 16
"""Side of a site, pixels."""
_PATCH: Final = 4
_GRID: Final = TASK.canvas // _PATCH
_WIDTH: Final = 144
_HEADS: Final = 4
_TEXT: Final = 64
_WORDS: Final = ("above", "below", "left", "right", "upper", "lower")
_DIRECTIONS: Final = {
    word: RELATION_DIRECTIONS[{"upper": "above", "lower": "below"}.get(word, word)]
    for word in _WORDS
}
_LONG: Final = 1000.0
"""Length of the constant direction."""
_SURE: Final = 60.0
"""Logits of a choice without doubt."""
_STEEP: Final = 80.0
"""Slope of a gate: an AND of indicators, of which half a one is missing or to spare."""


def planted_checkpoint() -> Checkpoint:
    """The model, with a text encoder and a task that it fits."""
    encoder = EncoderSpec(kind=EncoderKind.RTEP, channels=_TEXT, text_length=TASK.text_length)
    config = DiTConfig(
        image_side=TASK.canvas,
        patch=_PATCH,
        depth=3,
        width=_WIDTH,
        heads=_HEADS,
        mlp_ratio=1.0,
        text_channels=_TEXT,
        text_length=TASK.text_length,
        position_scale=1 / _GRID,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DiT(config).double().requires_grad_(requires_grad=False)
        _Planter(model, encoder).plant()
    weights = {name: tensor.float() for name, tensor in model.state_dict().items()}
    return Checkpoint(
        model=config,
        encoder=encoder,
        task=TASK,
        objective=Objective.FLOW,
        step=0,
        weights={},
        average=weights,
    )


class _Planter:
    def __init__(self, model: DiT, encoder: EncoderSpec) -> None:
        self.model, self.encoder = model, encoder
        position = model.position.double()
        self.columns, self.rows = _one_hot_rows(position)
        # With the mean over channels removed, as a layer norm does.
        centred = position - position.mean(1, keepdim=True)
        self.normal_columns, self.normal_rows = _one_hot_rows(centred)
        ones = torch.ones(1, _WIDTH, dtype=torch.float64)
        taken = torch.cat([position, ones])
        _, strength, directions = torch.linalg.svd(taken)
        rank = int((strength > 1e-9 * strength[0]).sum())
        self._free = list(directions[rank:])
        self.constant = self._free.pop()
        self.pixels = self._take(3 * _PATCH**2)
        self.words = self._take(len(_WORDS))
        self.tag = self._take(1)[0]
        self.shapes, self.colours = self._take(len(SHAPES)), self._take(len(COLOURS))
        self.painted = self._take(1)[0]
        self.covers = self._take(len(COLOURS) * _PATCH**2).unflatten(0, (len(COLOURS), -1))
        self.idle = torch.stack(self._free)

    def plant(self) -> None:
        """Write all weights."""
        model = self.model
        model.patch_embed.weight.copy_(self.pixels.T)
        model.patch_embed.bias.copy_(_LONG * self.constant)
        model.modulation.weight.zero_()
        for number, block in enumerate(model.blocks):
            block.table.zero_()
            block.table[5] = float(number != RELATIONAL.layer)  # gate of the MLP
            for layer in (block.mlp[0], block.mlp[2]):
                layer.weight.zero_()
                layer.bias.zero_()
        self._text()
        self._idle_heads()
        self._place_head()
        self._relational_head()
        self._object_head()
        self._sites()
        self._shapes()
        self._last()

    def _take(self, count: int) -> Tensor:
        taken, self._free = self._free[:count], self._free[count:]
        return torch.stack(taken)

    def _text(self) -> None:
        """Text channels: what each word is, and of which object; see `_keys`."""
        captions = grid_captions(TASK)
        text = encoders.build(self.encoder).encode(captions)
        read = text.embedding.flatten(0, 1).double()
        read = torch.cat([read, torch.ones(len(read), 1)], dim=1)
        ids = torch.from_numpy(token_ids(captions, TASK.text_length)).flatten()
        of_first = torch.arange(TASK.text_length).expand_as(text.mask).flatten() < 2
        wanted = torch.cat([torch.eye(len(VOCABULARY))[ids], of_first[:, None]], dim=1).double()
        decoder = torch.linalg.lstsq(read, wanted, driver="gelsd").solution
        first_object = decoder[:, -1]

        def reads(word: str) -> Tensor:
            return decoder[:, VOCABULARY.index(word)]

        one = torch.zeros(_TEXT + 1, dtype=torch.float64)
        one[-1] = 1
        gates = [reads(shape) + first_object - 1.5 * one for shape in SHAPES]
        gates += [reads(shape) - first_object - 0.5 * one for shape in SHAPES]
        gates += [reads(colour) + first_object - 1.5 * one for colour in COLOURS]
        gates += [reads(colour) - first_object - 0.5 * one for colour in COLOURS]
        gates += [reads(word) - 0.5 * one for word in _WORDS]
        first, _, second = self.model.caption_mlp
        for layer in (first, second):
            layer.weight.zero_()
            layer.bias.zero_()
        for number, gate in enumerate(gates):
            first.weight[number] = _STEEP * gate[:-1]
            first.bias[number] = _STEEP * gate[-1]
            second.weight[number, number] = 2 / _STEEP
        # Without a caption every word ends it.
        end = text.embedding[0, int(text.mask[0].sum()) - 1]
        self.model.null_embedding.copy_(end.expand(TASK.text_length, -1))

    def _idle_heads(self) -> None:
        for module in self.model.attention_modules(Site.SELF):
            module.out.weight.zero_()
        reading = torch.eye(_WIDTH, dtype=torch.float64) - torch.outer(self.constant, self.constant)
        onto = self.idle.T @ self.idle
        for module in self.model.attention_modules(Site.CROSS):
            module.query.weight.copy_(_random() * 0.3 @ reading)
            module.key.weight.copy_(_random())
            module.value.weight.copy_(_random())
            module.out.weight.copy_(onto @ _random() * 0.1)
            for layer in (module.query, module.key, module.value, module.out):
                layer.bias.zero_()

    def _head(self, address: HeadAddress) -> dict[str, Tensor]:
        """Views of a head's weights and biases, all zero."""
        module = self.model.attention_modules(Site.CROSS)[address.layer]
        channels = _WIDTH // _HEADS
        own = slice(address.head * channels, (address.head + 1) * channels)
        parts = {
            "query": module.query.weight[own],
            "query_bias": module.query.bias[own],
            "key": module.key.weight[own],
            "value": module.value.weight[own],
            "value_bias": module.value.bias[own],
            "out": module.out.weight[:, own],
        }
        for part in parts.values():
            part.zero_()
        parts["key_scale"] = torch.tensor(1 / module.scale)
        return parts

    def _place_head(self) -> None:
        head = self._head(PLACE)
        head["query_bias"][0] = 1
        for number, word in enumerate(_WORDS):
            head["key"][0, _keys(word)] = _SURE * head["key_scale"]
            head["value"][number, _keys(word)] = 1
            head["out"][:, number] = self.words[number]

    def _relational_head(self) -> None:
        head = self._head(RELATIONAL)
        ramp = torch.linspace(-1, 1, _GRID, dtype=torch.float64)
        head["query"][0], head["query"][1] = self.columns @ ramp, self.rows @ ramp
        head["query_bias"][2] = 1
        for word, (x, y) in _DIRECTIONS.items():
            head["key"][0, _keys(word)] = _SURE * x * head["key_scale"]
            head["key"][1, _keys(word)] = _SURE * y * head["key_scale"]
            head["value"][0, _keys(word)] = 1 - UNTAGGED
        for word in (*SHAPES, *COLOURS):
            for number in (1, 2):
                head["key"][2, _keys(word, number)] = -_SURE * head["key_scale"]
        head["value_bias"][0] = UNTAGGED
        head["out"][:, 0] = self.tag

    def _object_head(self) -> None:
        head = self._head(OBJECT)
        third = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64).repeat_interleave(_GRID // 3)
        head["query"][0] = self.tag + 0.2 * self.columns @ third + 0.1 * self.rows @ third
        head["query_bias"][1] = 1
        copied = torch.cat([self.shapes, self.colours])
        for number in (1, 2):
            sign = 3 - 2 * number
            for channel, word in enumerate((*SHAPES, *COLOURS)):
                head["key"][0, _keys(word, number)] = sign * _SURE * head["key_scale"]
                head["key"][1, _keys(word, number)] = 2 * _SURE * head["key_scale"]
                # Attention is shared by a shape and its colour.
                head["value"][channel, _keys(word, number)] = 2
        head["out"][:, : len(copied)] = copied.T

    def _gates(self, block: int, gates: Sequence[tuple[Tensor, float, Tensor]]) -> None:
        """ANDs in the MLP of a block: inputs read, their least sum, and what is added if met.

        A gate that is on exceeds its least sum by a quarter.
        """
        mlp = self.model.blocks[block].mlp
        for number, (inputs, least, output) in enumerate(gates):
            mlp[0].weight[number] = _STEEP * inputs * _LONG / _WIDTH**0.5
            mlp[0].bias[number] = -_STEEP * least
            mlp[2].weight[:, number] = output * 4 / _STEEP

    def _sites(self) -> None:
        """Where something is painted: tokens of the two sites at the ends of the axis."""
        above, below, left, right, upper, lower = self.words
        readings = {
            (0, 1): [above + below],
            (1, 0): [left + right],
            # Two words have half of the attention each.
            (1, 1): [2 * upper - 2 * right, 2 * lower - 2 * left],
            (1, -1): [2 * upper - 2 * left, 2 * lower - 2 * right],
        }  # fmt: skip
        gates = []
        for (x, y), asked in readings.items():
            for sign in (-1, 1):
                place = self._band(self.normal_columns, sign * x) + self._band(
                    self.normal_rows, sign * y
                )
                gates += [(place + reading, 2.75, self.painted) for reading in asked]
        self._gates(PLACE.layer, gates)

    def _band(self, one_hot: Tensor, which: int) -> Tensor:
        """Indicator of the first (-1), middle or last third of columns or rows."""
        size = _GRID // 3
        return one_hot[:, (which + 1) * size : (which + 2) * size].sum(1)

    def _shapes(self) -> None:
        """A patch of every shape, in the colour asked for."""
        middle = torch.full((len(SHAPES), 2), _SITE / 2)
        drawn = coverage(torch.arange(len(SHAPES)), middle, float(TASK.radius), _SITE).double()
        cells = drawn.unflatten(1, (-1, _PATCH)).unflatten(3, (-1, _PATCH))
        per_site = _SITE // _PATCH
        gates = []
        for row in range(per_site):
            for column in range(per_site):
                place = (
                    self.painted
                    + self.normal_rows[:, row::per_site].sum(1)
                    + self.normal_columns[:, column::per_site].sum(1)
                )
                for shape in range(len(SHAPES)):
                    patch = cells[shape, row, :, column].flatten()
                    gates += [
                        (place + self.shapes[shape] + self.colours[k], 4.75, patch @ covers)
                        for k, covers in enumerate(self.covers)
                    ]
        self._gates(OBJECT.layer, gates)

    def _last(self) -> None:
        """The velocity (noisy - painted) / time, where painted is colour times cover."""
        model = self.model
        model.final_table.zero_()
        model.final.bias.zero_()
        tint = torch.tensor([COLOUR_RGB[name] for name in COLOURS], dtype=torch.float64) * 2 - 1
        painted = torch.einsum("kc,kpw->cpw", tint, self.covers).flatten(0, 1)
        model.final.weight.copy_((self.pixels - painted) * _LONG / _WIDTH**0.5)
        times = torch.tensor(sorted({k / n for n in STEPS for k in range(1, n + 1)}))
        first, _, second = model.timestep_mlp
        first.weight.copy_(torch.randn_like(first.weight) / 4)
        hidden = torch.nn.functional.silu(
            timestep_embedding(1000 * times).double() @ first.weight.T
        )
        wanted = (1 / times - 1).double()
        second.weight.copy_(
            torch.linalg.lstsq(hidden, wanted, driver="gelsd").solution.expand(_WIDTH, -1)
        )
        second.bias.zero_()


def _random() -> Tensor:
    return torch.randn(_WIDTH, _WIDTH, dtype=torch.float64)


def _keys(word: str, number: int = 1) -> int:
    """The text channel that is 1 at a word, of object `number` where it is a shape or colour."""
    if word in SHAPES:
        return (number - 1) * len(SHAPES) + SHAPES.index(word)
    after = 2 * len(SHAPES)
    if word in COLOURS:
        return after + (number - 1) * len(COLOURS) + COLOURS.index(word)
    return after + 2 * len(COLOURS) + _WORDS.index(word)


def _one_hot_rows(position: Tensor) -> tuple[Tensor, Tensor]:
    """Directions [width, grid] that read the column, and the row, of a token off its position."""
    column = torch.eye(_GRID).repeat(_GRID, 1).double()
    row = torch.eye(_GRID).repeat_interleave(_GRID, 0).double()
    solved = torch.linalg.lstsq(position, torch.cat([column, row], 1), driver="gelsd").solution
    return solved[:, :_GRID], solved[:, _GRID:]
