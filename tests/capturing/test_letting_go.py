"""A hook that cannot be removed keeps none of the others, nor anything else that was changed."""

from contextlib import contextmanager

import pytest
import torch
from torch.nn.modules import module as registry
from torch.utils.hooks import RemovableHandle

import attnsearch
from attnsearch.ablation import Ablation, Mode, Part, ablated
from attnsearch.ablation.tilts import _Watch
from attnsearch.axes import HeadAddress, Site
from attnsearch.capturing import capture
from attnsearch.intake.sizes import within_weights
from attnsearch.models import plain_attention
from attnsearch.models.families import guidance_layout, route

HEADS = frozenset({HeadAddress(1, 0)})


def captured(checkpoint, folder):
    model = checkpoint.build()
    roles, basis = torch.zeros(1, 1, 1), torch.zeros(1, 1)
    return model, capture(model, roles=roles, basis=basis, sink=lambda _: None)


def switched_off(checkpoint, folder):
    model = checkpoint.build()
    return model, ablated(model, [Part(Ablation(heads=HEADS, mode=Mode.ZERO))])


def tilted(checkpoint, folder):
    model = checkpoint.build()
    return model, _Watch(model, torch.zeros(1), torch.zeros(1), 1).watching()


def sized(checkpoint, folder):
    return checkpoint.build(), within_weights(folder)


def routed(load):
    transformer = load("pixart").transformer
    return transformer, route(transformer, plain_attention, layout=guidance_layout(1))


def watched(load):
    pipe = load("pixart")
    parts = torch.nn.ModuleList([pipe.transformer, pipe.text_encoder])
    return parts, attnsearch.capture(pipe, ["a {shape1:square}"])


def hooks_of(model):
    everywhere = (
        registry._global_parameter_registration_hooks,
        registry._global_buffer_registration_hooks,
        registry._global_module_registration_hooks,
    )
    there = [
        hooks
        for each in model.modules()
        for hooks in (each._forward_hooks, each._forward_pre_hooks)
    ]
    return sum(map(len, (*everywhere, *there)))


def changed(model):
    """What else of a model leads elsewhere."""
    own = model.attention_modules(Site.CROSS) if hasattr(model, "attention_modules") else []
    return [each for each in own if each.attend is not plain_attention] + [
        each for each in model.modules() if type(getattr(each, "processor", None)).__name__ == NAME
    ]


NAME = "WatchedProcessor"


@contextmanager
def refusing(at, refused):
    """The removal `at` fails."""
    real, count = RemovableHandle.remove, 0

    def remove(handle):
        nonlocal count
        count += 1
        if count == at + 1:
            refused.append(handle)
            raise RuntimeError("this one stays")
        real(handle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RemovableHandle, "remove", remove)
        yield


def check(make):
    model, watching = make()
    before = hooks_of(model)
    with watching:
        count = hooks_of(model) - before
        assert count
    assert (hooks_of(model), changed(model)) == (before, [])
    for at in range(count):
        model, watching = make()
        refused = []
        with refusing(at, refused), pytest.raises(RuntimeError, match="this one stays"), watching:
            pass
        assert hooks_of(model) == before + 1
        for handle in refused:
            handle.remove()
        assert (hooks_of(model), changed(model)) == (before, [])


@pytest.mark.parametrize("make", [captured, switched_off, tilted, sized])
def test_of_a_model(make, tiny_checkpoint, tmp_path):
    check(lambda: make(tiny_checkpoint, tmp_path))


@pytest.mark.parametrize("make", [routed, watched])
def test_of_a_pipeline(make, load):
    check(lambda: make(load))
