"""What `models.py` needs of attnsearch: the work all variants do, and attnsearch's own variants."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from _models_pipeline import GUIDANCE, INPUTS, PIPELINE, TOP, Size, Work
from _models_variants import Variant
from torch import Tensor

from attnsearch import encoders, metrics
from attnsearch.aggregation import Aggregator
from attnsearch.axes import RELATION_DIRECTIONS, RELATIONS, ROLES, Branch, Site
from attnsearch.capturing import SketchRecord, capture
from attnsearch.encoders import EncoderKind, EncoderSpec
from attnsearch.metrics.meaning import token_positions
from attnsearch.prompts import Prompt, prompt_of_caption
from attnsearch.sampling import SamplerConfig, Schedule
from attnsearch.scanning import execute_plan, plan_scan
from attnsearch.scanning.subject import Anatomy, Arrays, Pixels, Samples, Watch
from attnsearch.store import open_scan, open_scans
from attnsearch.task.captions import grid_captions, parse
from attnsearch.task.spec import PRESETS
from attnsearch_kernels import dct2

ORDER: Final = 8
TEXT_CHANNELS: Final = 384
SHARPNESS: Final = 12.0
"""Factor on the random query weights, so that maps are not as good as uniform."""
STORE: Final = "store.zarr"
_BRANCHES: Final = (Branch.UNCOND, Branch.COND)


def make_work(folder: Path, size: Size) -> None:
    """A random PixArt pipeline, prompts of different relations and noise, in a folder."""
    from diffusers import (
        DPMSolverMultistepScheduler,
        PixArtAlphaPipeline,
        PixArtTransformer2DModel,
    )

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = PixArtTransformer2DModel(
            num_attention_heads=size.heads,
            attention_head_dim=size.head_channels,
            num_layers=size.layers,
            cross_attention_dim=size.heads * size.head_channels,
            caption_channels=TEXT_CHANNELS,
            sample_size=2 * size.side,
        )
        with torch.no_grad():
            for block in transformer.transformer_blocks:
                block.attn2.to_q.weight *= SHARPNESS
        noise = torch.randn(size.samples, 4, 2 * size.side, 2 * size.side)
        nothing = torch.randn(size.text_tokens, TEXT_CHANNELS)
    PixArtAlphaPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=None,
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
    ).save_pretrained(folder / PIPELINE)
    grid = grid_captions(PRESETS["paper"])
    captions = [
        [caption for caption in grid if caption.relation == relation][index]
        for index, relation in enumerate(RELATIONS[: size.samples])
    ]
    spec = EncoderSpec(kind=EncoderKind.RTEP, channels=TEXT_CHANNELS, text_length=size.text_tokens)
    text = encoders.build(spec).encode(captions)
    positions = token_positions((size.side, size.side))
    direction = np.array([RELATION_DIRECTIONS[caption.relation] for caption in captions])
    kappa = 0.5 * np.abs(positions @ direction.T).sum(axis=0)
    stored = {
        "size": asdict(size),
        "captions": [caption.text for caption in captions],
        "tensors": {
            "prompt_embeds": text.embedding,
            "prompt_attention_mask": text.mask.long(),
            "negative_prompt_embeds": nothing.expand_as(text.embedding).contiguous(),
            "negative_prompt_attention_mask": text.mask.long(),
            "latents": noise,
        },
        "roles": text.roles,
        "relation": text.roles[:, :, ROLES.index("relation")],
        "target": torch.from_numpy(direction / kappa[:, None]),
        "positions": torch.from_numpy(positions),
    }
    torch.save(stored, folder / INPUTS)


class InMemory(Variant):
    """Every sketch of one sampling, in arrays."""

    no_answer = "nothing is written; the row of the scan is the same with a store"

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self._arrays: dict[str, Tensor] = {}

    def sample(self, steps: int, folder: Path) -> Tensor:
        """Latents."""
        del folder
        work, size = self.work, self.work.size
        maps = (steps, size.layers, len(_BRANCHES), size.samples, size.heads)
        self._arrays = {
            "sketch": torch.empty(*maps, len(ROLES), _order(size) ** 2),
            "energy": torch.empty(*maps, len(ROLES)),
            "entropy": torch.empty(maps),
            "peak": torch.empty(maps),
        }

        def sink(record: SketchRecord) -> None:
            at = (record.step, record.layer, _BRANCHES.index(record.branch))
            for name, array in self._arrays.items():
                array[at] = getattr(record, name)

        basis = dct2(size.side, size.side, _order(size))
        with capture(work.pipe.transformer, roles=work.roles, basis=basis, sink=sink):
            return work.paint(steps)

    def held_bytes(self) -> int:
        """Of the arrays."""
        return sum(array.nbytes for array in self._arrays.values())

    def masses(self, folder: Path) -> Tensor:
        """[step, layer, row, head, role]: the constant function's coefficient."""
        del folder
        return self._arrays["sketch"][..., 0].flatten(2, 3).double() / self.work.size.side


class Scan(Variant):
    """A scan into a store, as `attnsearch scan` makes it."""

    no_answer = ""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self._subject = _Subject(work)

    def sample(self, steps: int, folder: Path) -> Tensor:
        """Latents; the store is complete and on disk."""
        self._subject.latents.clear()
        plan = plan_scan(
            self._subject,
            name="benchmark",
            prompts=self._subject.prompts,
            seeds=1,
            sampler=SamplerConfig(steps=steps, guidance=GUIDANCE),
            order=_order(self.work.size),
        )
        execute_plan(plan, self._subject, folder / STORE)
        return torch.cat(self._subject.latents)

    def masses(self, folder: Path) -> Tensor:
        """[step, layer, row, head, role]: the constant function's coefficient, in float16."""
        sketch = open_scan(folder / STORE)["sketch"].isel(basis=0).to_numpy().astype(np.float64)
        by_row = np.moveaxis(sketch, (1, 3, 2, 0), (0, 1, 2, 3))
        return torch.from_numpy(by_row).flatten(2, 3) / self.work.size.side

    def scores(self, folder: Path) -> Tensor:
        """[layer, head]."""
        scan = open_scan(folder / STORE)
        found = metrics.head_scores(STORE, scan, metrics.parse("relational"), Aggregator())
        return torch.from_numpy(found.score.reshape(scan.sizes["layer"], -1))

    def ranking(self, folder: Path) -> list[str]:
        """Addresses of the best heads by `attnsearch rank`, which tests every head too."""
        ranked = metrics.rank(open_scans(folder / STORE), "relational")
        return [str(head.address) for head in ranked[:TOP]]


class _Subject:
    """The pipeline without text encoder and VAE, as scans want their subjects."""

    device = torch.device("cpu")
    roles = ROLES
    regions = ()
    scores = ()

    def __init__(self, work: Work) -> None:
        self._work = work
        self.latents: list[Tensor] = []
        self.prompts: list[Prompt] = [prompt_of_caption(parse(text)) for text in work.captions]

    @property
    def anatomy(self) -> Anatomy:
        """The sizes of the work; images are stored as large as their latents."""
        size = self._work.size
        return Anatomy(
            site=Site.CROSS,
            layers=size.layers,
            heads=size.heads,
            head_channels=size.head_channels,
            grid=(size.side, size.side),
            keys=size.text_tokens,
            canvas=(2 * size.side, 2 * size.side),
            itemsize=4,
        )

    def branches(self, guidance: float) -> tuple[Branch, ...]:
        """Both."""
        del guidance
        return _BRANCHES

    def schedule(self, sampler: SamplerConfig) -> Schedule:
        """That of the pipeline's scheduler."""
        scheduler: Any = self._work.pipe.scheduler
        scheduler.set_timesteps(sampler.steps)
        sigma = scheduler.sigmas[: sampler.steps].numpy().astype(np.float32)
        return Schedule(scheduler.timesteps.numpy().astype(np.float32), sigma / (1 + sigma))

    def coordinates(self, prompts: Any) -> Arrays:
        """None beside what the prompts say."""
        del prompts
        return {}

    def attributes(self) -> dict[str, Any]:
        """The weights are random."""
        return {"checkpoint_sha256": "random"}

    def prepare(self) -> None:
        """Nothing is left to build."""

    def paint(self, samples: Samples, sampler: SamplerConfig, watch: Watch | None) -> Pixels:
        """The samples of one block, which are a run of the work's; latents are kept."""
        work = self._work
        start = work.captions.index(samples.prompts[0].text)
        rows = slice(start, start + len(samples.prompts))
        if watch is None:
            latents = work.paint(sampler.steps, rows)
        else:
            with capture(
                work.pipe.transformer,
                roles=work.roles[rows],
                basis=watch.basis,
                sink=watch.sink,
            ):
                latents = work.paint(sampler.steps, rows)
        self.latents.append(latents)
        return latents[:, :3].permute(0, 2, 3, 1).clamp(0, 1).numpy()

    def judge(self, samples: Samples, pixels: Pixels) -> tuple[Pixels, Arrays]:
        """There are neither regions nor scores."""
        return np.empty((len(pixels), 0, 0), dtype=np.float32), {}


def _order(size: Size) -> int:
    return min(ORDER, size.side)
