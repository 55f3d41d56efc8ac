"""Text encoders that have learned language: T5, CLIP's text half, and a packaged MiniLM.

The token-level states of the last layer, as the model gives them. T5 and CLIP are read from a
folder or the hub. MiniLM comes with a package, works offline, and stands for contextual encoders
in general where T5 is out of reach.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnsearch.axes import ROLES
from attnsearch.encoders.cache import EmbeddingCache, default_folder
from attnsearch.encoders.contract import EncodedText, EncoderKind, EncoderSpec
from attnsearch.encoders.source import encoding_with, find_source
from attnsearch.errors import ConfigError
from attnsearch.prompts import prompt_of_caption, role_matrix
from attnsearch.task.captions import Caption, check_fits


def fit_pretrained(
    kind: EncoderKind, source: str, dtype: str, captions: Sequence[Caption], *, at_least: int = 1
) -> EncoderSpec:
    """The spec of a pretrained encoder: its own width, and a length that holds every caption.

    The length is at least `at_least` tokens. A folder is written down with its whole path.

    Raises:
        AttnsearchError: the encoder cannot be read, or an optional package is missing.
    """
    # What the spec refuses is refused before anything is read.
    least = EncoderSpec(kind=kind, channels=2, text_length=at_least, source=source, dtype=dtype)
    found = find_source(kind, source)
    tokenizer = found.tokenizer()
    with encoding_with(found):
        lengths = [len(ids) for ids in tokenizer([c.text for c in captions])["input_ids"]]
        channels = found.config().hidden_size
    return replace(
        least,
        channels=channels,
        text_length=max(at_least, *lengths),
        source="" if kind is EncoderKind.MINILM else found.name,
    )


class PretrainedTextEncoder:
    """Last hidden states of a pretrained text encoder; the weights are read when first needed.

    A prompt is encoded by itself, padded to the spec's length, and once: within a batch its last
    bits would depend on its company, and a resumed scan would not repeat them. It stays on the
    CPU, so that they do not depend on the device of the model either.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        """Find the encoder and check that it fits the spec.

        Raises:
            AttnsearchError: the encoder cannot be read, or an optional package is missing.
            ConfigError: its width is not the spec's, or it reads fewer tokens.
        """
        self.spec = spec
        self._source = find_source(spec.kind, spec.source)
        self._tokenizer = self._source.tokenizer()
        with encoding_with(self._source):
            _check_sizes(spec, self._source.config())
        self._model: Any = None
        self._known: dict[str, Tensor] = {}
        self._cache: EmbeddingCache | None = None
        if spec.kind is not EncoderKind.MINILM:  # which takes seconds for a whole task
            identity = f"{spec.kind}\n{spec.dtype}\n{spec.text_length}\n{self._source.identity()}"
            shape = (spec.text_length, spec.channels)
            self._cache = EmbeddingCache(default_folder(), identity, shape)

    def encode(self, captions: Sequence[Caption]) -> EncodedText:
        """Embed captions; pads have the states the model gives them, which no mask lets through.

        Raises:
            CaptionError: a caption does not fit `spec.text_length`.
            ConfigError: the weights cannot be read, or the files do not make an encoder.
        """
        with encoding_with(self._source):
            return self._encoded(captions)

    def _encoded(self, captions: Sequence[Caption]) -> EncodedText:
        tokens = [self._tokenise(caption) for caption in captions]
        mask = torch.tensor([row["attention_mask"] for row in tokens])
        roles = [
            role_matrix(
                prompt_of_caption(caption),
                ROLES,
                row["offset_mapping"],
                row["special_tokens_mask"],
                row["attention_mask"],
            )
            for caption, row in zip(captions, tokens, strict=True)
        ]
        embedding = [
            self._embedding(caption.text, row)
            for caption, row in zip(captions, tokens, strict=True)
        ]
        gamma = torch.from_numpy(np.stack(roles))
        return EncodedText(torch.stack(embedding), mask.bool(), gamma)

    def _tokenise(self, caption: Caption) -> dict[str, Any]:
        length = self.spec.text_length
        row: dict[str, Any] = self._tokenizer(
            caption.text,
            padding="max_length",
            max_length=length,
            truncation=False,
            padding_side="right",
            return_attention_mask=True,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        check_fits(caption, len(row["input_ids"]), length)
        return row

    def _embedding(self, prompt: str, tokens: dict[str, Any]) -> Tensor:
        """[token, channel] float32, from memory, disk or the model, in this order."""
        known = self._known.get(prompt)
        if known is None and self._cache is not None:
            known = self._cache.read(prompt)
        if known is None:
            known = self._run(tokens)
            if self._cache is not None:
                self._cache.write(prompt, known)
        self._known[prompt] = known
        return known

    def _run(self, tokens: dict[str, Any]) -> Tensor:
        if self._model is None:
            self._model = self._source.model(self.spec.dtype)
        with torch.inference_mode():
            states = self._model(
                input_ids=torch.tensor([tokens["input_ids"]]),
                attention_mask=torch.tensor([tokens["attention_mask"]]),
            ).last_hidden_state[0].float()  # fmt: skip
        return states.clone()  # a tensor made in inference mode could not be trained on


def _check_sizes(spec: EncoderSpec, config: Any) -> None:
    if config.hidden_size != spec.channels:
        raise ConfigError(
            f"the {spec.kind} encoder {spec.source} has {config.hidden_size} channels, "
            f"the model reads {spec.channels}"
        )
    # T5 has relative positions and no limit.
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and spec.text_length > limit:
        raise ConfigError(
            f"the {spec.kind} encoder {spec.source} reads {limit} tokens, not {spec.text_length}"
        )
