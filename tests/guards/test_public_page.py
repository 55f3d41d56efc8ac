"""The names a user imports are there, and importing them costs nothing until they are used."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import attnsearch


def test_every_public_name_is_there_and_documented():
    for name in attnsearch.__all__:
        assert getattr(attnsearch, name).__doc__


def test_public_verbs_stay_callable_after_the_packages_behind_them_are_loaded():
    import attnsearch.capturing
    import attnsearch.metrics
    import attnsearch.scanning

    assert callable(attnsearch.scan)
    assert callable(attnsearch.capture)
    assert callable(attnsearch.rank)


def test_importing_attnsearch_loads_nothing_heavy():
    probe = "import sys, attnsearch; print('torch' in sys.modules, 'zarr' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "False"]


def test_every_name_that_the_readme_uses_is_public():
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    programs = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    used = {
        node.attr
        for program in programs
        for node in ast.walk(ast.parse(program))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "attnsearch"
    }
    assert {"scan", "circuit_of"} <= used <= set(attnsearch.__all__)
