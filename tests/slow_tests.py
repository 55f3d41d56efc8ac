"""The tests that may take more than five seconds on a quiet core, each with its reason.

A test that takes longer and is not named here is told at the end of a run. It does not fail, since
another process may have slowed it down.
"""

from typing import Final

LIMIT_SECONDS: Final = 5

REASONS: Final[dict[str, str]] = {}
"""Reason by test: the part of its name before any `[`, with the path of its file."""


def allows(nodeid: str) -> bool:
    """Whether a test may be slow."""
    return nodeid.partition("[")[0] in REASONS
