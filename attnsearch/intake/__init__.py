"""What comes from outside: files and values that anyone may have written, checked before use.

Nothing here knows what the files are for, and nothing here imports torch, except `sizes`.
"""

from attnsearch.intake.files import open_regular, read_json, read_regular
from attnsearch.intake.values import check_fields, one_line, quote

__all__ = [
    "check_fields",
    "one_line",
    "open_regular",
    "quote",
    "read_json",
    "read_regular",
]
