"""Files of prompts, one a line: `.jsonl` as `jsonl` describes, text as `template` does.

Such files come from anywhere, so their size is bounded before they are understood. Lines that are
captions of the two-object task are understood by `scanning.plan`, and read here too.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attnsearch.errors import PromptError
from attnsearch.intake import read_regular
from attnsearch.prompts.jsonl import parse_json
from attnsearch.prompts.prompt import Prompt
from attnsearch.prompts.template import parse_template

_OTHER_FORMS: Final = {
    ".json": "one JSON document",
    ".csv": "a table",
    ".tsv": "a table",
}
"""What is not read, and would be taken for prompts, line by line."""

MAX_BYTES: Final = 64 * 2**20
MAX_LINE: Final = 100_000
"""Characters."""
MAX_PROMPTS: Final = 1_000_000


def read_prompts(path: Path | str) -> list[Prompt]:
    """The prompts of a file in UTF-8, in order; one may come more than once.

    Blank lines are skipped, and in plain text those that begin with `#`. Blanks around a line are
    no part of it.

    Raises:
        PromptError: the file is of another form, cannot be read, is larger than the limits, holds
            no prompt, or a line is none; the message names file and line.
    """
    path = Path(path)
    is_json = path.suffix.lower() == ".jsonl"
    parse = parse_json if is_json else parse_template
    prompts: list[Prompt] = []
    for number, line in read_lines(path):
        if line.startswith("#") and not is_json:
            continue
        try:
            if len(prompts) == MAX_PROMPTS:
                raise PromptError(f"more than {MAX_PROMPTS:,} prompts; split the file")
            prompts.append(parse(line))
        except PromptError as error:
            raise PromptError(f"{path}, line {number}: {error}") from error
    if not prompts:
        raise PromptError(f"{path} holds no prompt")
    return prompts


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file in UTF-8 that are not blank, by number from 1, without outer blanks.

    Raises:
        PromptError: the file is of another form or cannot be read, or it or a line of it is larger
            than the limits.
    """
    if form := _OTHER_FORMS.get(path.suffix.lower()):
        raise PromptError(
            f"{path} is {form}; prompts are read from lines of text (.txt) or JSON lines (.jsonl), "
            "one prompt a line"
        )
    for number, raw in enumerate(_read(path).split(b"\n"), start=1):
        try:
            line = _decode(raw)
        except PromptError as error:
            raise PromptError(f"{path}, line {number}: {error}") from error
        if line:
            yield number, line


def _read(path: Path) -> bytes:
    try:
        data = read_regular(path, MAX_BYTES)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PromptError(f"cannot read prompts from {path}: {reason}") from error
    return data.removeprefix(b"\xef\xbb\xbf")  # the mark Windows puts before UTF-8


def _decode(raw: bytes) -> str:
    try:
        line = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PromptError(f"byte {error.start + 1} is not UTF-8") from error
    if len(line) > MAX_LINE:
        raise PromptError(f"{len(line):,} characters, more than the {MAX_LINE:,} a prompt may have")
    return line.strip()
