"""Our own DiT is a family, and a family may place text and image otherwise in every row."""

from dataclasses import replace

import pytest
import torch

from attnsearch.axes import Branch, Site
from attnsearch.capturing import capture
from attnsearch.errors import ConfigError
from attnsearch.models import Attention, DiT, DiTConfig, plain_attention
from attnsearch.models.families import (
    ForwardInputs,
    Places,
    find_denoiser,
    find_family,
    route,
    routing,
)
from attnsearch_kernels import dct2

GRID, TEXT, HEADS, CHANNELS, ROWS = 3, 5, 2, 4, 2
BOTH = ((Branch.UNCOND, slice(0, 1)), (Branch.COND, slice(1, 2)))
LENGTHS = (2, 4)
"""Text tokens of each row of `Mixed`."""


@pytest.fixture
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DiT(
            DiTConfig(
                image_side=2 * GRID, image_channels=3, patch=2, depth=2, width=HEADS * CHANNELS,
                heads=HEADS, mlp_ratio=2.0, text_channels=6, text_length=TEXT,
            )
        ).eval()  # fmt: skip
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def run(model, branches=BOTH):
    generator = torch.Generator().manual_seed(1)
    image, text = (torch.randn(*shape, generator=generator) for shape in (
        (ROWS, 3, 2 * GRID, 2 * GRID), (ROWS, TEXT, 6)
    ))  # fmt: skip
    mask = torch.ones(ROWS, TEXT, dtype=torch.bool)
    with torch.no_grad():
        return model(image, torch.full((ROWS,), 500.0), text, mask, branches)


def test_routing_to_plain_attention_changes_no_bit_and_tells_all(model):
    expected, calls, passes = run(model), [], []

    def attend(call):
        calls.append(call)
        return plain_attention(call)

    with route(model, attend, on_pass=passes.append):
        watched = [run(model) for _ in range(2)]
    assert all(torch.equal(each, expected) for each in watched)
    assert [each.step for each in passes] == [0, 1]
    assert [(call.step, call.layer) for call in calls] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for call in calls:
        assert (call.branches, call.grid, call.text_tokens) == (BOTH, (GRID, GRID), TEXT)
        assert call.query.shape == (ROWS, HEADS, GRID**2, CHANNELS)
    modules = [each for each in model.modules() if isinstance(each, Attention)]
    assert all(each.attend is plain_attention for each in modules)


def test_its_layers_are_those_of_its_cross_attention(model):
    family = find_family(model)
    layers = family.layers(model)
    assert [layer.attention for layer in layers] == model.attention_modules(Site.CROSS)
    assert {(layer.heads, layer.channels) for layer in layers} == {(HEADS, CHANNELS)}
    for layer in layers:
        assert family.output(model, layer) is layer.attention.out.weight


def test_a_pipeline_that_has_no_part_of_any_family_is_refused():
    with pytest.raises(ConfigError, match="Empty has no transformer to watch"):
        find_denoiser(type("Empty", (), {})())


class Mixed(torch.nn.Module):
    """Each row is its own text tokens, then its image tokens, then padding."""

    def __init__(self):
        super().__init__()
        self.attention = Attention(HEADS * CHANNELS, HEADS, 0, Site.JOINT)

    def forward(self, image, text):
        tokens = GRID**2 + max(LENGTHS)
        rows = [torch.cat([each[:length], picture]) for each, picture, length in zip(
            text, image, LENGTHS, strict=True
        )]  # fmt: skip
        stream = torch.stack(
            [torch.nn.functional.pad(row, (0, 0, 0, tokens - len(row))) for row in rows]
        )
        kept = torch.tensor([[at < len(row) for at in range(tokens)] for row in rows])
        return self.attention(stream, stream, (), kept)


def places_of_mixed(layer, call, running):
    image = torch.tensor([[length + at for at in range(GRID**2)] for length in LENGTHS])
    text = torch.tensor(
        [[at if at < length else -1 for at in range(max(LENGTHS))] for length in LENGTHS]
    )
    return Places(image, text, running.grid)


@pytest.fixture
def mixed(monkeypatch, model):
    """A model whose rows differ, as a family; beside it what it is called with."""
    family = replace(
        find_family(model),
        name="Mixed",
        model="Mixed",
        site=Site.JOINT,
        attention=lambda model: [model.attention],
        read=lambda model, arguments: ForwardInputs(
            rows=ROWS, grid=(GRID, GRID), text_tokens=max(LENGTHS)
        ),
        places=places_of_mixed,
    )
    monkeypatch.setattr(routing, "find_family", lambda _: family)
    monkeypatch.setattr("attnsearch.capturing.recorder.find_family", lambda _: family)
    generator = torch.Generator().manual_seed(2)
    image = torch.randn(ROWS, GRID**2, HEADS * CHANNELS, generator=generator)
    text = torch.randn(ROWS, max(LENGTHS), HEADS * CHANNELS, generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Mixed().eval(), image, text


@torch.no_grad()
def test_rows_that_differ_in_their_text_are_told_and_put_back(mixed):
    model, image, text = mixed
    expected, calls = model(image, text), []

    def attend(call):
        calls.append(call)
        return plain_attention(call)

    with route(model, attend):
        watched = model(image, text)
    torch.testing.assert_close(watched, expected)
    (call,) = calls
    for row in range(ROWS):
        query = model.attention.query(image[row]).unflatten(-1, (HEADS, -1)).transpose(0, 1)
        torch.testing.assert_close(call.query[row], query)
    with route(model, lambda call: torch.zeros_like(call.query)):
        without = model(image, text)
    for row, length in enumerate(LENGTHS):
        own = slice(length, length + GRID**2)
        changed = (without[row] != expected[row]).any(-1)
        assert changed[own].all()
        assert not changed[:length].any()
        assert not changed[own.stop :].any()


@torch.no_grad()
def test_sketches_of_rows_that_differ_are_those_of_the_maps(mixed):
    model, image, text = mixed
    basis, roles = dct2(GRID, GRID, 2), torch.zeros(ROWS, max(LENGTHS), 2)
    roles[:, 0, 0] = roles[:, 1:, 1] = 1
    records = []
    with capture(model, roles=roles, basis=basis, sink=records.append):
        model(image, text)
    (record,) = records
    for row, length in enumerate(LENGTHS):
        own = torch.cat([text[row, :length], image[row]])
        query, key = (
            side(tokens).unflatten(-1, (HEADS, -1)).transpose(0, 1).double()
            for side, tokens in ((model.attention.query, image[row]), (model.attention.key, own))
        )
        maps = (query @ key.mT * model.attention.scale).softmax(-1)[..., :length]
        exact = (basis.double().T @ maps @ roles[row, :length].double()).mT
        torch.testing.assert_close(record.sketch[row].double(), exact, rtol=1e-4, atol=1e-5)
