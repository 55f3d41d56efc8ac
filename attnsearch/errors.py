"""What can go wrong through no fault of the program.

The command line prints an `AttnsearchError` as one line and exits with 2; any other exception
is a defect of attnsearch and keeps its traceback. This module imports nothing of ours.
"""


class AttnsearchError(Exception):
    """The request cannot be met; the message says what is wrong and what to do, in one line."""


class ConfigError(AttnsearchError):
    """A setting has a value outside its range, or two settings contradict each other."""


class CheckpointError(AttnsearchError):
    """A checkpoint is missing, damaged, unsafe to load, or of another architecture."""


class DivergenceError(AttnsearchError):
    """Training left the finite numbers."""


class CaptionError(AttnsearchError):
    """A caption has a word outside the vocabulary or does not follow the grammar."""


class PromptError(AttnsearchError):
    """A prompt, or a file of prompts, does not follow its format."""


class StoreError(AttnsearchError):
    """A store is missing, damaged, of another schema, or belongs to a different scan."""


class MetricError(AttnsearchError):
    """A metric or template is unknown, or the store lacks what it needs."""
