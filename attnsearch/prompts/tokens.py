"""Which role a sub-word token has, read from where it lies in its prompt.

Pure arithmetic on character offsets; no tokenizer is called here.
"""

from collections import Counter
from collections.abc import Sequence
from reprlib import repr as short

import numpy as np
import numpy.typing as npt

from attnsearch.errors import PromptError
from attnsearch.prompts.prompt import END, FILLER, PAD, RESERVED_ROLES, Prompt


def token_roles(
    prompt: Prompt,
    roles: Sequence[str],
    offsets: Sequence[tuple[int, int]],
    special: Sequence[int],
    attended: Sequence[int],
) -> list[int]:
    """Index into `roles` per token of a tokenised prompt.

    `roles` are those of the scan, see `roles_of`. `offsets` are the half-open character spans of
    the tokens in `prompt.text`; `special` is 1 on what the tokenizer, or a pipeline's own preface,
    adds around the text, which has the role `end`; `attended` is 0 on padding, whatever else it
    is. The offsets of these two are not looked at.

    A token has the role of most of its characters, of the first among equals. Blanks do not count,
    and a token of nothing but blanks belongs, as SentencePiece means it, to the word after it.

    Raises:
        PromptError: `roles` lacks a role of the prompt, or a reserved one.
        ValueError: a token lies outside the text, so that the offsets are those of another.
    """
    index = {role: number for number, role in enumerate(roles)}
    if missing := [role for role in (*prompt.roles, *RESERVED_ROLES) if role not in index]:
        raise PromptError(
            f"role {missing[0]} of {short(prompt.text)} is not among the roles {', '.join(roles)}"
        )
    role_at = _role_of_characters(prompt)
    return [
        index[PAD if not seen else END if added else _role_of_token(prompt, role_at, span)]
        for span, added, seen in zip(offsets, special, attended, strict=True)
    ]


def role_matrix(
    prompt: Prompt,
    roles: Sequence[str],
    offsets: Sequence[tuple[int, int]],
    special: Sequence[int],
    attended: Sequence[int],
) -> npt.NDArray[np.float32]:
    """Gamma [token, role]: one-hot rows, of the roles that `token_roles` gives.

    Raises:
        PromptError, ValueError: as `token_roles`.
    """
    index = token_roles(prompt, roles, offsets, special, attended)
    return np.eye(len(roles), dtype=np.float32)[index]


def _role_of_characters(prompt: Prompt) -> list[str]:
    """A role for every character; blanks between words have that of the word after them."""
    marked = {
        at: role
        for role, spans in prompt.spans.items()
        for start, end in spans
        for at in range(start, end)
    }
    role_at = [FILLER] * (len(prompt.text) + 1)
    for at in reversed(range(len(prompt.text))):
        blank = prompt.text[at].isspace()
        role_at[at] = marked.get(at, role_at[at + 1] if blank else FILLER)
    return role_at


def _role_of_token(prompt: Prompt, role_at: Sequence[str], span: tuple[int, int]) -> str:
    start, end = span
    if not 0 <= start <= end <= len(prompt.text):
        raise ValueError(f"a token spans {span} of the {len(prompt.text)} characters of a prompt")
    counts = Counter(role_at[at] for at in range(start, end) if not prompt.text[at].isspace())
    return counts.most_common(1)[0][0] if counts else role_at[start]
