"""The names a user imports are there, and importing them costs nothing until they are used."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import attnsearch

ROOT = Path(__file__).resolve().parents[2]


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


PAGES = sorted(path for folder in (".", "docs") for path in (ROOT / folder).glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_name_that_a_page_uses_is_public(page):
    """In programs and in sentences; a submodule counts where a page names it in full."""
    text = page.read_text(encoding="utf-8")
    for program in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        ast.parse(program)
    for dotted in re.findall(r"\battnsearch((?:\.[A-Za-z_]\w*)+)", text):
        first, *more = dotted.strip(".").split(".")
        if first in ("zarr", "signatures", "commands") and not more:
            continue  # names of files, and a group of entry points
        if first in attnsearch.__all__:
            continue
        found = importlib.import_module(f"attnsearch.{first}")
        for name in more:
            found = getattr(found, name)


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
