"""docs/prompts.md shows prompts that are read as it says."""

import re
from pathlib import Path

from attnsearch.prompts import read_prompts, roles_of

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "prompts.md").read_text(encoding="utf-8")


def test_the_examples_are_read_with_their_roles(tmp_path):
    for language, suffix, count in (("text", ".txt", 2), ("json", ".jsonl", 1)):
        (example,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)
        path = (tmp_path / "prompts").with_suffix(suffix)
        path.write_text(example, encoding="utf-8")
        prompts = read_prompts(path)
        assert len(prompts) == count
        assert {"shape1", "relation"} < set(roles_of(prompts))
        assert {p.attributes["relation"] for p in prompts} <= {"above", "left"}


def test_the_limits_are_those_of_the_code():
    from attnsearch.prompts import files
    from attnsearch.prompts.prompt import MAX_ROLES

    assert f"room for {MAX_ROLES} roles" in PAGE
    assert f"{files.MAX_BYTES // 2**20} MiB" in PAGE
    assert f"{files.MAX_LINE:,} characters" in PAGE
    assert files.MAX_PROMPTS == 1_000_000
