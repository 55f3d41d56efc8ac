"""Drawing a caption for every scene of a batch, by table look-up."""

from collections.abc import Sequence

import torch
from torch import Tensor

from attnsearch.axes import RELATIONS
from attnsearch.task.captions import Caption
from attnsearch.task.scenes import Scenes
from attnsearch.task.spec import OBJECT_PAIRS


class CaptionSampler:
    """Indexes a list of captions by what they describe."""

    def __init__(self, captions: Sequence[Caption]) -> None:
        groups: dict[tuple[int, int, int], list[int]] = {}
        for index, caption in enumerate(captions):
            first, second = caption.colours_named
            key = (caption.pair, RELATIONS.index(caption.relation), 2 * first + second)
            groups.setdefault(key, []).append(index)
        longest = max(len(group) for group in groups.values())
        self._table = torch.zeros(len(OBJECT_PAIRS), len(RELATIONS), 4, longest, dtype=torch.int64)
        self._wordings = torch.zeros(len(OBJECT_PAIRS), len(RELATIONS), 4, dtype=torch.int64)
        for key, group in groups.items():
            self._table[key][: len(group)] = torch.tensor(group)
            self._wordings[key] = len(group)

    def draw(self, scenes: Scenes, dropout: float, generator: torch.Generator) -> Tensor:
        """Index [sample] of a caption true of each scene.

        The wording is uniform among those of the relation; each colour word is left out on its
        own with probability `dropout`, which has to be 0 where the captions name all colours.
        """
        count = len(scenes.pair)
        named = torch.rand(count, 2, generator=generator) >= dropout
        colours = 2 * named[:, 0].long() + named[:, 1].long()
        wordings = self._wordings[scenes.pair, scenes.relation, colours]
        choice = (torch.rand(count, generator=generator) * wordings).long()
        return self._table[scenes.pair, scenes.relation, colours, choice]
