"""Where the weights of a checkpoint came from before it was trained."""

import re
from dataclasses import dataclass
from typing import Final

from attnsearch.errors import ConfigError
from attnsearch.intake import check_fields, quote

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The checkpoint that a training began with.

    Raises:
        ConfigError: the digest is none.
    """

    name: str
    """Of the model, without folder and ending."""
    digest: str
    """SHA-256 of its file."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not _DIGEST.fullmatch(self.digest):
            raise ConfigError(f"digest must be a SHA-256, not {quote(self.digest)}")
