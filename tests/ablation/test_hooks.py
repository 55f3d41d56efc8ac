"""Switching a head off does that, only that, and only as long as it is asked to."""

from dataclasses import replace

import pytest
import torch

from attnsearch import encoders
from attnsearch.ablation import Ablation, Mode, Part, ablated, mean_outputs
from attnsearch.axes import HeadAddress, Site
from attnsearch.errors import ConfigError
from attnsearch.models import Checkpoint, DiT
from attnsearch.models.attention import plain_attention
from attnsearch.models.guidance import Conditioning
from attnsearch.sampling import SamplerConfig, noise_of_seeds, sample
from attnsearch.task.captions import grid_captions

HEAD = HeadAddress(1, 0)
SAMPLER = SamplerConfig(steps=3, guidance=1)


class Batch:
    """A few prompts and their noise."""

    def __init__(self, checkpoint: Checkpoint, prompts: int = 4, equal: bool = False) -> None:
        self.checkpoint = checkpoint
        self.model = checkpoint.build()
        captions = grid_captions(checkpoint.task)[: 1 if equal else prompts] * (
            prompts if equal else 1
        )
        text = encoders.build(checkpoint.encoder).encode(captions)
        self.conditioning = Conditioning.from_text(text, torch.device("cpu"))
        self.noise = noise_of_seeds([0] * prompts if equal else range(prompts), self.model)

    def images(self, model: DiT | None = None, sampler: SamplerConfig = SAMPLER) -> torch.Tensor:
        return sample(
            model or self.model, self.checkpoint.objective, self.conditioning, self.noise, sampler
        )


@pytest.fixture
def batch(tiny_checkpoint: Checkpoint) -> Batch:
    generator = torch.Generator().manual_seed(0)
    # An untrained model adds nothing from cross-attention: its output weights begin at zero.
    weights = {
        name: torch.randn(tensor.shape, generator=generator) * 0.2
        if "out.weight" in name
        else tensor
        for name, tensor in tiny_checkpoint.average.items()
    }
    return Batch(replace(tiny_checkpoint, average=weights))


def off(*heads: HeadAddress, mode: Mode = Mode.ZERO, **more: object) -> list[Part]:
    return [Part(Ablation(heads=frozenset(heads), mode=mode, **more))]


@pytest.mark.parametrize("mode", Mode)
def test_to_ablate_nothing_changes_nothing(batch: Batch, mode: Mode) -> None:
    plain = batch.images()
    with ablated(batch.model, off(mode=mode)):
        assert torch.equal(batch.images(), plain)


def test_a_head_at_zero_is_a_head_whose_output_weights_are_zero(batch: Batch) -> None:
    plain = batch.images()
    with ablated(batch.model, off(HEAD)):
        without = batch.images()
    assert not torch.allclose(without, plain, atol=1e-3)
    cut = batch.checkpoint.build()
    module = cut.attention_modules(Site.CROSS)[HEAD.layer]
    channels = module.out.in_features // module.heads
    with torch.no_grad():
        module.out.weight[:, HEAD.head * channels : (HEAD.head + 1) * channels] = 0
    torch.testing.assert_close(without, batch.images(cut))


def test_the_mean_of_equal_samples_is_what_each_has(batch: Batch) -> None:
    equal = Batch(batch.checkpoint, equal=True)
    means, counts = {}, {}
    with mean_outputs(equal.model, means, counts):
        plain = equal.images()
    assert set(counts.values()) == {4}
    with ablated(equal.model, off(HEAD, mode=Mode.MEAN), means=means):
        torch.testing.assert_close(equal.images(), plain)


def test_means_of_batches_are_those_of_all(batch: Batch) -> None:
    together, apart = {}, {}
    with mean_outputs(batch.model, together, {}):
        batch.images()
    counts = {}
    for rows in (slice(0, 1), slice(1, 4)):
        part = Batch(batch.checkpoint)
        part.conditioning = Conditioning(*(each[rows] for each in batch.conditioning))
        part.noise = batch.noise[rows]
        with mean_outputs(part.model, apart, counts):
            part.images()
    assert together.keys() == apart.keys()
    for key, mean in together.items():
        torch.testing.assert_close(apart[key], mean, rtol=1e-4, atol=1e-5)


def test_hidden_tokens_are_as_if_they_were_padding(batch: Batch) -> None:
    hidden = torch.zeros_like(batch.conditioning.text_mask)
    hidden[:, 1] = True
    module = batch.model.attention_modules(Site.CROSS)[HEAD.layer]
    heads = [HeadAddress(layer, head)
             for layer in range(len(batch.model.attention_modules(Site.CROSS)))
             for head in range(module.heads)]  # fmt: skip
    with ablated(batch.model, off(*heads, mode=Mode.MASK), hidden=hidden):
        masked = batch.images()
    padded = Batch(batch.checkpoint)
    padded.conditioning = batch.conditioning._replace(
        text_mask=batch.conditioning.text_mask & ~hidden
    )
    torch.testing.assert_close(masked, padded.images())
    assert not torch.allclose(masked, batch.images(), atol=1e-3)


def test_only_the_steps_and_branches_asked_for_are_touched(batch: Batch) -> None:
    plain = batch.images()
    with ablated(batch.model, off(HEAD, first_step=3)):
        assert torch.equal(batch.images(), plain)
    with ablated(batch.model, off(HEAD, first_step=2)):
        late = batch.images()
    assert not torch.equal(late, plain)
    with ablated(batch.model, off(HEAD, branches=frozenset())):
        assert torch.equal(batch.images(), plain)


def test_to_scale_by_zero_is_to_switch_off_and_by_one_is_nothing(batch: Batch) -> None:
    plain = batch.images()
    with ablated(batch.model, off(HEAD, mode=Mode.SCALE, factor=1)):
        assert torch.equal(batch.images(), plain)
    with ablated(batch.model, off(HEAD)):
        zero = batch.images()
    with ablated(batch.model, off(HEAD, mode=Mode.SCALE, factor=0)):
        assert torch.equal(batch.images(), zero)


def test_a_sample_that_lends_to_another_is_itself_unchanged(batch: Batch) -> None:
    plain = batch.images()
    part = Part(
        Ablation(heads=frozenset({HEAD}), mode=Mode.RESAMPLE), slice(0, 2), torch.tensor([2, 3])
    )
    with ablated(batch.model, [part]):
        patched = batch.images()
    assert torch.equal(patched[2:], plain[2:])
    assert not torch.allclose(patched[:2], plain[:2], atol=1e-3)


def test_to_borrow_from_ones_equal_changes_nothing(batch: Batch) -> None:
    equal = Batch(batch.checkpoint, equal=True)
    plain = equal.images()
    part = Part(
        Ablation(heads=frozenset({HEAD}), mode=Mode.OPPOSITE), slice(0, 2), torch.tensor([3, 2])
    )
    with ablated(equal.model, [part]):
        torch.testing.assert_close(equal.images(), plain)


def test_parts_of_a_batch_are_ablated_as_they_would_be_alone(batch: Batch) -> None:
    first, second = HeadAddress(0, 1), HEAD
    alone = []
    for head in (first, second):
        with ablated(batch.model, off(head)):
            alone.append(batch.images())
    parts = [
        off(first)[0]._replace(samples=slice(0, 1)),
        off(second)[0]._replace(samples=slice(1, 4)),
    ]
    with ablated(batch.model, parts):
        together = batch.images()
    torch.testing.assert_close(together[:1], alone[0][:1])
    torch.testing.assert_close(together[1:], alone[1][1:])


def test_into_a_head_is_what_is_lost_where_only_its_queries_read(batch: Batch) -> None:
    loud = {
        name: tensor * 10 if "cross_attention.out" in name or "caption_mlp" in name else tensor
        for name, tensor in batch.checkpoint.average.items()
    }
    alone = Batch(replace(batch.checkpoint, average=loud))
    early, late = HeadAddress(0, 0), [HeadAddress(1, 0), HeadAddress(1, 1)]
    with ablated(alone.model, off(early, into=frozenset(late))):
        path = alone.images()
    plain = alone.images()
    assert not torch.allclose(path, plain, atol=1e-2)
    # The same by hand: the stream keeps what the head wrote, the queries do not read it.
    module = alone.model.attention_modules(Site.CROSS)[1]
    lost: list[torch.Tensor] = []

    def write(attention: torch.nn.Module, arguments: tuple, output: torch.Tensor) -> None:
        channels = attention.out.in_features // attention.heads
        target, source, _, mask = arguments
        query, key, value = (
            part(each).unflatten(-1, (attention.heads, -1)).transpose(1, 2)[:, :1]
            for part, each in (
                (attention.query, target), (attention.key, source), (attention.value, source)
            )
        )  # fmt: skip
        own = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask[:, None, None], scale=attention.scale
        )
        lost[:] = [own[:, 0] @ attention.out.weight[:, :channels].T]

    hooks = [
        alone.model.attention_modules(Site.CROSS)[0].register_forward_hook(write),
        module.query.register_forward_pre_hook(lambda _, inputs: (inputs[0] - lost[0],)),
    ]
    by_hand = alone.images()
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(path, by_hand, rtol=1e-3, atol=1e-4)


def test_a_head_that_is_not_later_cannot_read(batch: Batch) -> None:
    with pytest.raises(ConfigError, match="L0H1 does not come after L0H0"):
        off(HeadAddress(0, 0), into=frozenset({HeadAddress(0, 1)}))
    with pytest.raises(ConfigError, match="finite"):
        off(HEAD, mode=Mode.SCALE, factor=float("nan"))


def test_the_model_is_restored_after_an_exception(batch: Batch) -> None:
    plain = batch.images()
    with pytest.raises(KeyboardInterrupt), ablated(batch.model, off(HEAD)):
        raise KeyboardInterrupt
    modules = batch.model.attention_modules(Site.CROSS)
    assert all(module.attend is plain_attention for module in modules)
    assert torch.equal(batch.images(), plain)


@pytest.mark.parametrize("head", [HeadAddress(99, 0), HeadAddress(0, 99)])
def test_a_head_that_is_not_there_is_refused(batch: Batch, head: HeadAddress) -> None:
    with (
        pytest.raises(ConfigError, match=f"there is no head {head}"),
        ablated(batch.model, off(head)),
    ):
        pass


def test_what_a_mode_needs_is_asked_for(batch: Batch) -> None:
    for mode in (Mode.MEAN, Mode.MASK, Mode.RESAMPLE, Mode.OPPOSITE):
        with pytest.raises(ConfigError, match="needs"), ablated(batch.model, off(HEAD, mode=mode)):
            pass
    with (
        pytest.raises(ConfigError, match="no mean outputs of step 0"),
        ablated(batch.model, off(HEAD, mode=Mode.MEAN), means={}),
    ):
        batch.images()
    with (
        ablated(batch.model, off(HEAD)),
        pytest.raises(ConfigError, match="do not nest"),
        ablated(batch.model, off(HEAD)),
    ):
        pass
    with pytest.raises(ConfigError, match="before the first"):
        off(HEAD, first_step=3, last_step=1)
