"""How much a test may spend: a little and the same every time, or a lot and new every time.

`make test` draws the same examples in every run. `make test-deep` sets the two variables below,
draws other examples from a seed that it prints, and runs the tests marked `deep` too.
"""

import os
from typing import Any, Final

from hypothesis import settings

DEEP: Final = os.environ.get("ATTNSEARCH_TEST_DEEP") == "1"

SEED: Final = int(os.environ.get("ATTNSEARCH_TEST_SEED", "0"))
"""Of what a test draws by itself, outside Hypothesis."""


def examples(few: int, deep: int, **others: Any) -> settings:
    """Settings of a property: `few` examples in `make test`, `deep` of them in `make test-deep`."""
    return settings(max_examples=deep if DEEP else few, **others)
