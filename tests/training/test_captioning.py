from collections import Counter
from dataclasses import replace

import pytest
import torch

from attnsearch.axes import RELATIONS
from attnsearch.task.captions import phrases_of, training_captions
from attnsearch.task.scenes import draw_scenes
from attnsearch.task.spec import PRESETS
from attnsearch.training.captioning import CaptionSampler


def drawn(spec, count=4000):
    """Scenes, and the caption drawn for each."""
    generator = torch.Generator().manual_seed(0)
    captions = training_captions(spec)
    scenes = draw_scenes(spec, count, generator)
    chosen = CaptionSampler(captions).draw(scenes, spec.colour_dropout, generator)
    return scenes, [captions[index] for index in chosen]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_caption_is_true_of_its_scene(preset):
    scenes, captions = drawn(PRESETS[preset], 500)
    asked = [(caption.pair, RELATIONS.index(caption.relation)) for caption in captions]
    assert asked == list(zip(scenes.pair.tolist(), scenes.relation.tolist(), strict=True))


def test_wordings_of_a_relation_are_equally_frequent():
    spec = PRESETS["paper"]
    _, captions = drawn(spec)
    counts = Counter(
        next(p for p in phrases_of(spec, c.relation) if f" is {p} " in f" {c.text} ")
        for c in captions
        if c.relation == "upper_left"
    )
    total = sum(counts.values())
    assert len(counts) == 3
    deviation = (total * 2 / 9) ** 0.5
    assert all(abs(count - total / 3) < 4 * deviation for count in counts.values())


@pytest.mark.parametrize("dropout", [0.0, 0.3, 1.0])
def test_each_colour_word_is_left_out_on_its_own(dropout):
    _, captions = drawn(replace(PRESETS["paper"], colour_dropout=dropout))
    named = torch.tensor([caption.colours_named for caption in captions]).double()
    assert named.mean(0).tolist() == pytest.approx([1 - dropout] * 2, abs=0.03)
    assert float(named.prod(1).mean()) == pytest.approx((1 - dropout) ** 2, abs=0.03)
