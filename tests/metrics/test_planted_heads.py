"""A relational head planted by hand in a random network is found; decoys are not."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from attnsearch import encoders
from attnsearch.axes import HeadAddress, Site
from attnsearch.encoders import EncoderKind, EncoderSpec
from attnsearch.metrics import RankedHead, rank
from attnsearch.metrics.meaning import token_positions
from attnsearch.models import SIZES, Attention, Checkpoint, DiT, DiTConfig, Objective
from attnsearch.sampling import SamplerConfig
from attnsearch.scanning import DiTSubject, execute_plan, plan_scan, read_captions
from attnsearch.store import open_scan
from attnsearch.task.captions import grid_captions
from attnsearch.task.spec import PRESETS

RELATIONAL = HeadAddress(0, 1)
FIXED_BIAS = HeadAddress(0, 2)
SHAPE = HeadAddress(0, 3)

TASK = PRESETS["small"]
ENCODER = EncoderSpec(kind=EncoderKind.RTEP, channels=64, text_length=TASK.text_length)
WORD_DIRECTIONS = {
    "above": (0, -1), "upper": (0, -1), "below": (0, 1), "lower": (0, 1),
    "left": (-1, 0), "right": (1, 0),
}  # fmt: skip


def _random_model(seed: int) -> DiT:
    """All weights random, also those a fresh network starts at zero."""
    size = SIZES["atto"]
    torch.manual_seed(seed)
    model = DiT(
        DiTConfig(
            image_side=TASK.canvas,
            depth=size.depth,
            width=size.width,
            heads=size.heads,
            mlp_ratio=size.mlp_ratio,
            text_channels=ENCODER.channels,
            text_length=TASK.text_length,
        )
    )
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    return model.requires_grad_(requires_grad=False)


def _fit(inputs: Tensor, wanted: Tensor) -> Tensor:
    """The weight matrix [out, in] that maps rows of inputs nearest to the wanted rows."""
    return torch.linalg.lstsq(inputs, wanted, driver="gelsd").solution.T


def _set_head(attention: Attention, head: int, query: Tensor, key: Tensor) -> None:
    channels = attention.query.out_features // attention.heads
    rows = slice(head * channels, (head + 1) * channels)
    for linear, weight in ((attention.query, query), (attention.key, key)):
        linear.weight[rows] = 0
        linear.bias[rows] = 0
        linear.weight[rows.start : rows.start + len(weight)] = weight


def _plant(model: DiT) -> None:
    """Three heads of layer 0, whose queries read the position code in the raw residual.

    relational: keys of the direction words are the directions, queries the position. fixed bias:
    keys of all direction words are the same. shape: keys of the shape words, at every position.
    """
    captions = grid_captions(TASK)
    text = encoders.build(ENCODER).encode(captions)
    known = text.mask
    source = model.caption_mlp(text.embedding)[known]
    position = token_positions((model.config.grid, model.config.grid))
    read_position = _fit(model.position, torch.from_numpy(position).float())
    flat = [word for caption in captions for word in (*caption.words, "</s>")]
    directions = torch.tensor([WORD_DIRECTIONS.get(word, (0, 0)) for word in flat]).float()
    is_direction = directions.abs().sum(1, keepdim=True)
    is_shape = torch.tensor([[float(w in ("triangle", "circle", "square"))] for w in flat])
    attention = model.attention_modules(Site.CROSS)[0]
    strength = 30.0
    _set_head(attention, RELATIONAL.head, read_position, strength * _fit(source, directions))
    _set_head(
        attention,
        FIXED_BIAS.head,
        read_position,
        strength * _fit(source, is_direction.repeat(1, 2)),
    )
    _set_head(attention, SHAPE.head, read_position[:1] * 0, _fit(source, is_shape))
    channels = attention.query.out_features // attention.heads
    attention.query.bias[SHAPE.head * channels] = strength


def _ranking(model: DiT, folder: Path) -> dict[HeadAddress, RankedHead]:
    checkpoint = Checkpoint(
        model=model.config,
        encoder=ENCODER,
        task=TASK,
        objective=Objective.FLOW,
        step=0,
        weights={},
        average=model.state_dict(),
    )
    subject = DiTSubject(checkpoint, torch.device("cpu"))
    plan = plan_scan(
        subject,
        name="planted",
        prompts=read_captions("grid", TASK),
        seeds=1,
        sampler=SamplerConfig(steps=3),
    )
    execute_plan(plan, subject, folder / "s.zarr")
    ranking = rank({"planted": open_scan(folder / "s.zarr")}, "relational")
    return {row.address: row for row in ranking}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[HeadAddress, RankedHead]:
    model = _random_model(0)
    _plant(model)
    return _ranking(model, tmp_path_factory.mktemp("planted"))


def test_the_planted_relational_head_comes_first(
    planted: dict[HeadAddress, RankedHead],
) -> None:
    found = planted[RELATIONAL]
    assert found.rank == 1
    assert found.score > 0.1
    assert found.q_value < 0.02
    assert found.p_family < 0.01


@pytest.mark.parametrize("decoy", [FIXED_BIAS, SHAPE])
def test_planted_decoys_stay_below_every_significance(
    decoy: HeadAddress, planted: dict[HeadAddress, RankedHead]
) -> None:
    row = planted[decoy]
    assert row.p_value > 0.05
    assert row.q_value > 0.05


def test_a_random_network_has_no_significant_head(tmp_path: Path) -> None:
    assert min(row.q_value for row in _ranking(_random_model(0), tmp_path).values()) > 0.05
