"""Ways to sample the work of `models.py` and to keep its attention: all but attnsearch's own.

Every environment has torch and diffusers, so the first two run in each; a peer is imported where
its variant is built.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
from _models_pipeline import PIPELINE, KeepingProcessor, Work, masses_of, scores_of, top_heads
from torch import Tensor

MAPS: Final = "maps.pt"


class Variant:
    """Sampling alone; the others derive from it."""

    writes: ClassVar[bool] = False
    """Whether what is held is to be written; a scan has written by then."""
    no_answer: ClassVar[str] = "nothing is recorded"
    """Why a question about heads cannot be answered from disk; empty where it can."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def sample(self, steps: int, folder: Path) -> Tensor:
        """Latents; what is recorded is held, or lies in the folder."""
        del folder
        return self.work.paint(steps)

    def held_bytes(self) -> int:
        """Of what the last sampling recorded, at its largest."""
        return 0

    def write(self, folder: Path) -> None:
        """Write what is held."""

    def masses(self, folder: Path) -> Tensor | None:
        """Role masses as of `Sums.masses`, of what is held or in the folder; None of none."""
        del folder
        return None

    def scores(self, folder: Path) -> Tensor:
        """Relational scores [layer, head] from what is in the folder."""
        raise NotImplementedError

    def ranking(self, folder: Path) -> list[str]:
        """Addresses of the heads with the largest scores, from what is in the folder."""
        return top_heads(self.scores(folder))


class EveryMap(Variant):
    """A processor that materialises the map and keeps it."""

    writes = True
    no_answer = ""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.maps: list[Tensor] = []
        """[row, head, query, key], in the order of steps, then layers."""

    def sample(self, steps: int, folder: Path) -> Tensor:
        """Latents; the maps are held."""
        del folder
        self.maps = []
        with processors(self.work, lambda: KeepingProcessor(self.maps.append)):
            return self.work.paint(steps)

    def held_bytes(self) -> int:
        """Of the maps."""
        return sum(each.nbytes for each in self.maps)

    def write(self, folder: Path) -> None:
        """One file."""
        torch.save(self.maps, folder / MAPS)

    def read(self, folder: Path) -> Iterator[Tensor]:
        """The maps that were written."""
        yield from torch.load(folder / MAPS)

    def masses(self, folder: Path) -> Tensor | None:
        """Of the maps that are held."""
        del folder
        return masses_of(self.maps, self.work)

    def scores(self, folder: Path) -> Tensor:
        """Of the maps that were written."""
        return scores_of(self.read(folder), self.work)


class Nnsight(EveryMap):
    """nnsight 0.8.1: the map from queries and keys, in a trace of the whole pipeline."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        diffusion = import_module("nnsight.modeling.diffusion")
        absent = {"tokenizer": None, "text_encoder": None, "vae": None}
        folder = str(work.folder / PIPELINE)
        self._model: Any = diffusion.DiffusionModel(folder, dispatch=True, **absent)
        self._model.pipeline.set_progress_bar_config(disable=True)

    def sample(self, steps: int, folder: Path) -> Tensor:
        """Latents; the maps are held."""
        del folder
        model, arguments, heads = self._model, self.work.arguments(steps), self.work.size.heads
        layers = range(self.work.size.layers)
        scale = self.work.size.head_channels**-0.5
        masks = [self.work.tensors[f"{sign}prompt_attention_mask"] for sign in ("negative_", "")]
        bias = (1 - torch.cat(masks).float())[:, None, None] * -10000.0
        with model.generate(**arguments) as tracer:
            maps = [].save()  # type: ignore[attr-defined]  # what nnsight's own tracing adds
            for _ in tracer.iter[:steps]:
                for layer in layers:
                    attn = model.transformer.transformer_blocks[layer].attn2
                    query = attn.to_q.output.unflatten(-1, (heads, -1)).transpose(1, 2)
                    key = attn.to_k.output.unflatten(-1, (heads, -1)).transpose(1, 2)
                    logits = query @ key.transpose(-1, -2) * scale + bias
                    maps.append(logits.softmax(-1).detach().cpu())
            images = tracer.result.save()
        self.maps = list(maps)
        return images.images


class AttentionMapDiffusers(EveryMap):
    """attention-map-diffusers 1.0.0, with settings of its `AttentionCapture`."""

    settings: ClassVar[dict[str, Any]]

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self._capture: Any = import_module("attention_map_diffusers").AttentionCapture
        self._recorded: Any = None
        self._largest = 0

    def sample(self, steps: int, folder: Path) -> Tensor:
        """Latents; the maps are held, those of the fast mode computed at the end."""
        del folder
        self._recorded = None
        with self._capture(self.work.pipe, **self.settings) as capture:
            latents = self.work.paint(steps)
        self._recorded = capture.compute()
        self.maps = [record.data for record in self._recorded]
        self._largest = capture.collector.peak_capture_bytes
        return latents

    def held_bytes(self) -> int:
        """By its own count; the fast mode first holds queries and keys."""
        return max(self._largest, super().held_bytes())

    def write(self, folder: Path) -> None:
        """By its own means: a file a map, and one about them."""
        self._recorded.save(str(folder), save_raw=True, save_visualizations=False)

    def read(self, folder: Path) -> Iterator[Tensor]:
        """The files in order of their numbers; the metadata is read as anyone would."""
        json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
        for path in sorted((folder / "raw" / "image-to-text").iterdir()):
            yield torch.load(path)


class Exact(AttentionMapDiffusers):
    """Its exact mode, all heads and steps."""

    settings: ClassVar[dict[str, Any]] = {"mode": "exact", "heads": "all", "timesteps": "all"}


class Fast(AttentionMapDiffusers):
    """Its fast mode, all heads and steps."""

    settings: ClassVar[dict[str, Any]] = {"mode": "fast", "heads": "all", "timesteps": "all"}


class Defaults(AttentionMapDiffusers):
    """Its defaults."""

    settings: ClassVar[dict[str, Any]] = {}
    no_answer = "the defaults keep the mean over heads, of the last step"

    def masses(self, folder: Path) -> Tensor | None:
        """None of single heads."""
        del folder
        return None


@contextmanager
def processors(work: Work, make: Callable[[], Any]) -> Iterator[None]:
    """Other processors of the cross-attention modules, put back at the end."""
    modules = work.attention()
    before = [module.processor for module in modules]
    try:
        for module in modules:
            module.set_processor(make())
        yield
    finally:
        for module, processor in zip(modules, before, strict=True):
            module.set_processor(processor)
