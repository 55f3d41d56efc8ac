"""What a file does not tell about itself, as a user says it; refused here before torch is there."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attnsearch.encoders import EncoderKind, EncoderSpec
from attnsearch.errors import ConfigError
from attnsearch.lookup import is_pipeline, model_inside

if TYPE_CHECKING:
    from attnsearch.capturing.regions import Segmenter


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a file does not tell about itself.

    Raises:
        ConfigError: details of an encoder are given and no encoder is named, or they are not its.
    """

    encoder: EncoderKind | None = None
    """Text encoder of a PixArt checkpoint."""
    encoder_source: str = ""
    """Folder or hub name of a T5 or CLIP encoder."""
    encoder_dtype: str = "float32"
    heads: int | None = None
    """Heads of a PixArt checkpoint whose width does not tell them."""
    vae: Path | None = None
    """Folder of the VAE that decodes a latent model's images."""
    size: int | None = None
    """Side of a pipeline's images, pixels."""
    segmenter: "Segmenter | None" = None
    """Finds regions in a pipeline's images."""
    regions: tuple[str, ...] = ()
    """Their names."""
    control: bool = False
    """Shuffle the weights of a checkpoint, for a scan that others are compared with."""

    def __post_init__(self) -> None:
        if self.encoder is None and (self.encoder_source or self.heads is not None):
            raise ConfigError("a PixArt checkpoint is read with --encoder rte, rtep, t5 or clip")
        if self.encoder is not None:
            # Its sizes are those of the checkpoint; the rest is wrong or right already.
            EncoderSpec(
                kind=self.encoder,
                channels=2,
                text_length=1,
                source=self.encoder_source,
                dtype=self.encoder_dtype,
            )

    def check(self, model: Path) -> None:
        """Refuse what cannot be said of the model at a path.

        Raises:
            ConfigError: it does not fit what lies there, or what it names is not there.
        """
        if self.vae is not None and not self.vae.is_dir():
            raise ConfigError(f"no such folder: {self.vae}; --vae is the folder of a VAE")
        if is_pipeline(model):
            if self.control:
                raise ConfigError(f"{model} is a pipeline; controls are made of checkpoints")
            if self.encoder is not None or self.vae is not None:
                raise ConfigError(f"{model} is a pipeline and brings its own encoder and VAE")
        elif model.is_dir():
            raise ConfigError(
                f"{model} is neither a checkpoint file nor a pipeline's folder{model_inside(model)}"
            )
        elif self.segmenter is not None:
            raise ConfigError(f"the images of {model} have a scorer of their own")
        elif self.size is not None:
            raise ConfigError(
                f"the size of the images of {model} is fixed; --size is for pipelines"
            )
