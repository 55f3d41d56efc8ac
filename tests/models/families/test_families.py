"""What holds for every family, on tiny models of the real classes."""

import subprocess
import sys
from dataclasses import dataclass
from math import prod

import pytest
import torch

from attnsearch.axes import Branch, Site
from attnsearch.errors import ConfigError
from attnsearch.models import plain_attention
from attnsearch.models.families import FAMILIES, find_family, guidance_layout, route
from attnsearch_kernels import dct2, sketch_attention
from attnsearch_kernels.reference import reference_float64
from attnsearch_kernels.tolerance import largest_errors, tolerance_of

ROWS = 2
LAYOUT = guidance_layout(ROWS)
NEAR = {"rtol": 1e-4, "atol": 1e-5}


@dataclass
class Seen:
    """Calls, their outputs and passes of one watched forward pass."""

    calls: list
    outputs: list
    passes: list
    output: torch.Tensor


@torch.no_grad()
def run(tiny, **changed):
    return tiny.transformer(**{**tiny.case.inputs, **changed}, return_dict=False)[0]


def watch(tiny, attend=plain_attention, **changed):
    calls, outputs, passes = [], [], []

    def spy(call):
        calls.append(call)
        outputs.append(attend(call))
        return outputs[-1]

    with route(tiny.transformer, spy, layout=LAYOUT, on_pass=passes.append):
        output = run(tiny, **changed)
    return Seen(calls, outputs, passes, output)


def map_of(call):
    """The map [row, head, query, key] of a call, in float64."""
    scores = call.query.double() @ call.key.double().mT * call.scale
    if call.key_mask is not None:
        scores = scores.masked_fill(~call.key_mask[:, None, None, :], -torch.inf)
    return scores.softmax(-1)


def test_routing_to_plain_attention_changes_nothing(tiny):
    expected = run(tiny)
    watched = watch(tiny)
    if Site.JOINT in {call.site for call in watched.calls}:
        # Queries of text are attended apart, and products of other sizes may round otherwise.
        torch.testing.assert_close(watched.output, expected, rtol=0, atol=1e-5)
    else:
        assert torch.equal(watched.output, expected)
    assert len(watched.calls) == len(tiny.case.layers)


def test_what_attend_returns_is_what_the_model_uses(tiny):
    expected = run(tiny)
    output = watch(tiny, lambda call: plain_attention(call) + 1).output
    assert (output - expected).abs().max() > 1e-3


def test_the_materialised_map_gives_the_output_of_the_call(tiny):
    watched = watch(tiny)
    for call, output in zip(watched.calls, watched.outputs, strict=True):
        by_hand = map_of(call) @ call.value.double()
        torch.testing.assert_close(output.double(), by_hand, rtol=0, atol=1e-5)


def test_layers_are_counted_in_the_order_they_run(tiny):
    order = []
    for path in tiny.case.layers:
        module = tiny.transformer.get_submodule(path)
        module.register_forward_pre_hook(lambda *_, path=path: order.append(path))

    def attend(call):
        order.append(call.layer)
        return plain_attention(call)

    watch(tiny, attend)
    assert order == [
        item for pair in zip(tiny.case.layers, range(9), strict=False) for item in pair
    ]


def test_a_pass_and_its_calls_have_the_declared_shape(tiny):
    case, watched = tiny.case, watch(tiny)
    (running,) = watched.passes
    assert running.step == 0
    assert running.grid == case.grid
    assert running.branches == ((Branch.COND, slice(0, ROWS)),)
    layers = find_family(tiny.transformer).layers(tiny.transformer)
    image_tokens = prod(case.grid)
    keys = case.text_tokens + (image_tokens if case.text_keys else 0)
    for layer, call in zip(layers, watched.calls, strict=True):
        assert (layer.index, layer.site) == (call.layer, call.site)
        assert call.site is (Site.JOINT if case.text_keys else Site.CROSS)
        assert call.branches == running.branches
        assert call.query.shape[:3] == (ROWS, layer.heads, image_tokens)
        assert call.key.shape[:3] == call.value.shape[:3] == (ROWS, layer.heads, keys)
        assert layer.heads == case.heads
        assert layer.channels == call.query.shape[3] == call.value.shape[3]
        assert (call.step, call.grid) == (running.step, case.grid)
        assert call.text_tokens == running.text_tokens == case.text_tokens
        if case.text_keys is None:
            assert call.text_keys is None
        else:
            assert range(keys)[call.text_keys] == range(keys)[case.text_keys]


def changed_at(before, after):
    """Indices along the token axis at which [row, head, token, channel] differ."""
    return (before != after).any(-1).any(1).any(0).nonzero().flatten().tolist()


def test_changing_a_text_token_changes_its_key_alone(tiny):
    before = watch(tiny).calls[0]
    first = 0 if before.text_keys is None else before.text_keys.start
    for name, offset in tiny.case.text.items():
        for token in (0, 2):
            text = tiny.case.inputs[name].clone()
            text[:, token] += 1
            after = watch(tiny, **{name: text}).calls[0]
            assert changed_at(before.key, after.key) == [first + offset + token]


def test_changing_a_patch_of_the_latent_changes_its_query_alone(tiny):
    case = tiny.case
    for name, module in tiny.transformer.named_modules():
        if name.endswith("attn1.to_out.0"):  # so that tokens do not mix on the way
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
    before = watch(tiny).calls[0]
    height, width = case.grid[-2:]
    for y, x in ((0, 1), (1, 0), (3, 5)):
        latents = case.inputs["hidden_states"].clone()
        index = ((len(case.grid) - 2) * height + y) * width + x
        if case.patch is None:
            latents[:, index] += 1
        else:
            last_frame = latents if latents.dim() == 4 else latents[:, :, -1]
            last_frame[:, :, case.patch * y, case.patch * x] += 1
        after = watch(tiny, hidden_states=latents).calls[0]
        assert changed_at(before.query, after.query) == [index]


def test_masked_text_tokens_get_no_attention(tiny):
    case = tiny.case
    if case.mask is None:
        assert all(call.key_mask is None for call in watch(tiny).calls)
        return
    expected = case.inputs[case.mask].bool()
    watched = watch(tiny)
    for call in watched.calls:
        assert torch.equal(call.key_mask, expected)
        assert (
            map_of(call)[~expected[:, None, None].expand(-1, *call.query.shape[1:3], -1)] == 0
        ).all()
    text = case.inputs["encoder_hidden_states"].clone()
    text[~expected] += 1
    assert torch.equal(run(tiny, encoder_hidden_states=text), watched.output)


@pytest.mark.parametrize("name", ["pixart", "sana", "ltx"])
def test_a_row_whose_text_is_all_masked_stays_what_diffusers_makes_of_it(load, name):
    tiny = load(name)
    mask = tiny.case.inputs[tiny.case.mask].clone()
    mask[0] = 0
    expected = run(tiny, **{tiny.case.mask: mask})
    watched = watch(tiny, **{tiny.case.mask: mask})
    # Diffusers adds -10000 to every logit, which leaves three decimals of them.
    torch.testing.assert_close(watched.output, expected, rtol=0, atol=5e-3)
    assert all(call.key_mask[0].all() for call in watched.calls)
    zeroed = watch(tiny, lambda call: plain_attention(call) * 0, **{tiny.case.mask: mask})
    assert (zeroed.output[0] - expected[0]).abs().max() > 2e-2


def test_a_head_writes_its_output_through_its_columns_of_the_output_projection(tiny):
    image_tokens = prod(tiny.case.grid)
    family = find_family(tiny.transformer)
    for layer, path in zip(family.layers(tiny.transformer), tiny.case.layers, strict=True):
        # A single block of Flux projects heads and MLP together, after its attention module.
        single = path.startswith("single_")
        writer = tiny.transformer.get_submodule(
            path.removesuffix("attn") + "proj_out" if single else path
        )
        given = []

        def note(module, arguments, output, given=given):
            given.append(output if isinstance(output, torch.Tensor) else output[0])

        handle = writer.register_forward_hook(note)
        added = torch.randn(
            image_tokens, layer.channels, generator=torch.Generator().manual_seed(layer.index)
        )
        for head in (None, layer.heads - 1):

            def attend(call, head=head, added=added, layer=layer):
                output = torch.zeros_like(call.query)
                if head is not None and call.layer == layer.index:
                    output[:, head] = added
                return output

            watch(tiny, attend)
        handle.remove()
        weight = family.output(tiny.transformer, layer)
        expected = added @ weight.unflatten(1, (layer.heads, -1))[:, -1].mT
        without, together = (each[:, -image_tokens:] for each in given)
        torch.testing.assert_close(together - without, expected.expand_as(without), **NEAR)


def test_both_branches_of_a_batch_are_told_apart(tiny):
    seen = []

    def attend(call):
        seen.append(call.branches)
        return plain_attention(call)

    with route(tiny.transformer, attend, layout=guidance_layout(1)):
        run(tiny)
    both = ((Branch.UNCOND, slice(0, 1)), (Branch.COND, slice(1, 2)))
    assert seen == [both] * len(tiny.case.layers)


def test_a_batch_of_another_layout_is_refused(tiny):
    with (
        pytest.raises(ConfigError, match="2 rows for 3 samples"),
        route(tiny.transformer, plain_attention, layout=guidance_layout(3)),
    ):
        run(tiny)


def state_of(transformer):
    """Everything `route` touches."""
    return (
        [
            transformer.get_submodule(name).processor
            for name, module in transformer.named_modules()
            if hasattr(module, "processor")
        ],
        dict(transformer._forward_hooks),
        dict(transformer._forward_pre_hooks),
        sorted(vars(transformer)),
    )


def test_the_transformer_is_as_before_after_the_block(tiny):
    before = state_of(tiny.transformer)
    with route(tiny.transformer, plain_attention, layout=LAYOUT):
        assert state_of(tiny.transformer) != before
    assert state_of(tiny.transformer) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_transformer_is_as_before_after_an_error_in_a_call(tiny, error):
    expected, before = run(tiny), state_of(tiny.transformer)

    def fail(call):
        raise error("no room")

    with (
        pytest.raises(error, match="no room"),
        route(tiny.transformer, fail, layout=LAYOUT),
    ):
        run(tiny)
    assert state_of(tiny.transformer) == before
    assert torch.equal(run(tiny), expected)


def test_an_unknown_processor_is_refused_by_name_before_the_forward_pass(tiny):
    class SlicedProcessor:
        def __call__(self, *args, **kwargs):
            raise AssertionError("must not run")

    last = tiny.transformer.get_submodule(tiny.case.layers[-1])
    last.set_processor(SlicedProcessor())
    before = state_of(tiny.transformer)
    message = f"layer {len(tiny.case.layers) - 1} of {tiny.case.transformer} has .* SlicedProcessor"
    with pytest.raises(ConfigError, match=message):
        route(tiny.transformer, plain_attention, layout=LAYOUT).__enter__()
    assert state_of(tiny.transformer) == before


def test_captures_do_not_nest_and_the_outer_one_goes_on(tiny):
    calls = []

    def attend(call):
        calls.append(call)
        return plain_attention(call)

    with route(tiny.transformer, attend, layout=LAYOUT):
        with pytest.raises(ConfigError, match="nest"):
            route(tiny.transformer, plain_attention, layout=LAYOUT).__enter__()
        run(tiny)
    assert len(calls) == len(tiny.case.layers)


def test_sketch_attention_sketches_the_text_columns_of_the_map(tiny):
    image_tokens, text_tokens = prod(tiny.case.grid), tiny.case.text_tokens
    height = image_tokens // tiny.case.grid[-1]
    basis = dct2(height, tiny.case.grid[-1], order=3)
    membership = torch.eye(3)[torch.arange(text_tokens) % 3]
    sketches = []

    def attend(call):
        roles = torch.zeros(*call.key.shape[::2], 3)
        roles[:, call.text_keys or slice(None)] = membership
        result = sketch_attention(
            call.query,
            call.key,
            call.value,
            roles,
            basis,
            scale=call.scale,
            key_mask=call.key_mask,
        )
        sketches.append((result, roles))
        return result.output

    watched = watch(tiny, attend)
    torch.testing.assert_close(watched.output, run(tiny), rtol=1e-5, atol=1e-5)
    for call, (result, roles) in zip(watched.calls, sketches, strict=True):
        by_hand = basis.double().T @ map_of(call) @ roles.double()[:, None]
        torch.testing.assert_close(result.sketch.double(), by_hand, rtol=0, atol=5e-5)
        exact = reference_float64(
            *call[3:6], roles, basis, scale=call.scale, key_mask=call.key_mask
        )
        tolerance = tolerance_of(torch.float32)
        errors = largest_errors(result, exact, call.value)
        assert all(error <= getattr(tolerance, name) for name, error in errors.items())


def test_diffusers_is_not_imported_for_it():
    program = "import sys, attnsearch.models.families; sys.exit('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_every_family_has_a_tiny_model(load, case_names):
    served = {find_family(load(name).transformer).name for name in case_names}
    assert served | {"DiT"} == {family.name for family in FAMILIES}  # which is in test_own
