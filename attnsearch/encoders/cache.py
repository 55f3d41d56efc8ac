"""Embeddings on disk, one file per prompt, so that a large encoder runs once per prompt.

Nothing here can fail a run: what cannot be read is computed again, what cannot be written is not
kept. A file counts as read if it has the very header that an embedding of this shape has, so that
none can claim to be larger.
"""

import hashlib
import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from attnsearch.cleanup import placed
from attnsearch.intake import read_regular

_FLOAT: Final = np.lib.format.dtype_to_descr(np.dtype(np.float32))


def default_folder() -> Path:
    """Where embeddings are kept: the user's cache folder, by the XDG convention."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "attnsearch" / "embeddings"


class EmbeddingCache:
    """The embeddings [token, channel] float32 that one encoder gave, by prompt."""

    def __init__(self, folder: Path, encoder: str, shape: tuple[int, int]) -> None:
        """`encoder` must tell apart all encoders that would give a prompt another embedding."""
        self._folder = folder
        self._encoder = encoder
        self._shape = shape

    def path(self, prompt: str) -> Path:
        """The file of a prompt."""
        digest = hashlib.sha256(f"{self._encoder}\n{prompt}".encode()).hexdigest()
        return self._folder / f"{digest}.npy"

    def read(self, prompt: str) -> Tensor | None:
        """The embedding of a prompt; None where there is none, or a damaged one."""
        header = io.BytesIO()
        described = {"descr": _FLOAT, "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(header, described)
        size = 4 * self._shape[0] * self._shape[1]
        try:
            data = read_regular(self.path(prompt), header.tell() + size)
        except OSError:
            return None
        if len(data) < header.tell() + size or not data.startswith(header.getvalue()):
            return None
        array = np.frombuffer(data, np.float32, offset=header.tell()).reshape(self._shape)
        return torch.from_numpy(array.copy()) if np.isfinite(array).all() else None

    def write(self, prompt: str, embedding: Tensor) -> None:
        """Keep an embedding; whole or not at all."""
        path = self.path(prompt)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Of this name alone, whatever other threads and processes write.
            partial = path.with_name(f".{uuid4().hex}")
            with placed(path, partial), partial.open("wb") as file:
                np.lib.format.write_array(file, embedding.numpy(), allow_pickle=False)
