"""Free prompts: which characters of a text have which role, and which role a token then has."""

from attnsearch.prompts.captioned import prompt_of_caption
from attnsearch.prompts.files import MAX_PROMPTS, read_lines, read_prompts
from attnsearch.prompts.prompt import Prompt, check_distinct, coordinates_of, roles_of
from attnsearch.prompts.relations import relation_named
from attnsearch.prompts.template import parse_template
from attnsearch.prompts.tokens import role_matrix, token_roles

__all__ = [
    "MAX_PROMPTS",
    "Prompt",
    "check_distinct",
    "coordinates_of",
    "parse_template",
    "prompt_of_caption",
    "read_lines",
    "read_prompts",
    "relation_named",
    "role_matrix",
    "roles_of",
    "token_roles",
]
