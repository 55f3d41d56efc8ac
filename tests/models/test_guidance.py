import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnsearch import encoders
from attnsearch.axes import Branch
from attnsearch.models.guidance import Conditioning, branches_of, guided_prediction
from attnsearch.task.captions import grid_captions

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return tiny_checkpoint.build()


@pytest.fixture(scope="module")
def conditioning(tiny_checkpoint):
    captions = grid_captions(tiny_checkpoint.task)[::37]
    text = encoders.build(tiny_checkpoint.encoder).encode(captions)
    return Conditioning.from_text(text, torch.device("cpu"))


@pytest.fixture(scope="module")
def image(conditioning):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(conditioning.text), 3, 32, 32, generator=generator)


def predict(model, image, text, mask, timestep=400.0):
    return model(image, torch.full((len(image),), timestep), text, mask)


def test_a_guidance_of_one_is_the_conditional_prediction(model, image, conditioning):
    guided = guided_prediction(model, image, 400.0, conditioning, 1)
    assert torch.equal(guided, predict(model, image, *conditioning))


@given(weight=st.floats(-2, 10))
def test_guidance_goes_from_unconditional_towards_conditional(model, image, conditioning, weight):
    cond = predict(model, image, *conditioning)
    null = model.null_embedding.expand_as(conditioning.text)
    uncond = predict(model, image, null, conditioning.text_mask)
    guided = guided_prediction(model, image, 400.0, conditioning, weight)
    torch.testing.assert_close(guided, uncond + weight * (cond - uncond), **CLOSE)
    assert (cond - uncond).abs().max() > 0.01


def test_the_unconditional_branch_does_not_read_the_caption(model, image, conditioning):
    other = conditioning._replace(text=conditioning.text.flip(1))
    predictions = [
        guided_prediction(model, image, 400.0, each, 0) for each in (conditioning, other)
    ]
    torch.testing.assert_close(*predictions, **CLOSE)


@pytest.mark.parametrize("guidance", [1, 4.5])
def test_the_model_is_told_which_rows_are_which_branch(model, image, conditioning, guidance):
    seen = []

    def spy(module, inputs):
        seen.append(inputs)

    handle = model.register_forward_pre_hook(spy)
    guided_prediction(model, image, 400.0, conditioning, guidance)
    handle.remove()
    [(_, _, text, _, rows)] = seen
    assert tuple(branch for branch, _ in rows) == branches_of(guidance)
    null = model.null_embedding.expand_as(conditioning.text)
    for branch, chosen in rows:
        assert torch.equal(text[chosen], null if branch is Branch.UNCOND else conditioning.text)


def test_only_a_guidance_of_one_saves_the_unconditional_branch():
    assert branches_of(1.0) == (Branch.COND,)
    assert branches_of(0.0) == branches_of(4.5) == (Branch.UNCOND, Branch.COND)
