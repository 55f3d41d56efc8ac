"""The names a user imports are there, and importing them costs nothing until they are used."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


PACKAGES = sorted(
    path
    for path in Path(attnsearch.__file__).parent.rglob("__init__.py")
    if "loader(__name__" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.parent.name)
def test_names_that_load_on_first_use_are_those_a_type_checker_sees(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ".".join(path.parent.relative_to(Path(attnsearch.__file__).parents[1]).parts)
    (homes,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and node.target.id == "_HOMES"
    )
    seen = {
        alias.asname: node.module.removeprefix(f"{package}.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module != "attnsearch.lazy"
        for alias in node.names
        if alias.name == alias.asname
    }
    assert seen == homes
    # A module of the name would be there in its place as soon as anything imports it.
    assert [name for name in homes if (path.parent / f"{name}.py").exists()] == []
    assert [name for name in homes if (path.parent / name).is_dir()] == []
