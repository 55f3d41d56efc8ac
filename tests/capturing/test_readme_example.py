"""The example of the README for a pipeline of diffusers, executed as it stands there."""

import re
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"
LINES = [
    "the {colour1:red} {shape1:square} is {relation:above} the {colour2:blue} {shape2:circle}",
    "the {colour1:red} {shape1:square} is {relation:below} the {colour2:blue} {shape2:circle}",
    "the {colour1:red} {shape1:square} is {relation:left of} the {colour2:blue} {shape2:circle}",
]


def test_the_example_runs_on_a_saved_pipeline(folders, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (example,) = [block for block in blocks if "attnsearch.capture(" in block]
    (tmp_path / "my-pixart").symlink_to(folders.pixart)
    (tmp_path / "prompts.txt").write_text("\n".join(LINES), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(example, names)
    assert [head.rank for head in names["heads"]] == [1, 2, 3, 4]
    assert len(names["images"]) == len(LINES)
    scan = names["record"].scan()
    assert list(scan["prompt"].to_numpy()) == [prompt.text for prompt in names["prompts"]]
    assert scan.sizes["step"] == 14
