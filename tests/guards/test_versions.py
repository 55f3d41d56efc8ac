"""The versions that pyproject.toml promises are those that the two sets of constraints install."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
# Installs the same files as faiss-cpu, and needs a GPU: no set of constraints installs it.
IN_NO_SET = {"faiss-gpu"}


def named() -> list[Requirement]:
    """Everything pyproject.toml asks for: dependencies and extras, but not the project itself."""
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    requirements = [Requirement(line) for group in groups for line in group]
    return [one for one in requirements if one.name not in {PROJECT["name"], *IN_NO_SET}]


def pins(name: str) -> dict[str, Version]:
    """What a constraints file pins; a line is `name==version`, a comment may follow."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    stated = [line.split("#")[0].strip() for line in lines]
    pairs = [line.split("==") for line in stated if line]
    versions = {canonicalize_name(package): Version(version) for package, version in pairs}
    assert len(versions) == len(pairs), f"{name} pins a package twice"
    return versions


CURRENT = pins("constraints.txt")
LOWEST = pins("constraints-min.txt")
each_requirement = pytest.mark.parametrize("requirement", named(), ids=str)


@each_requirement
def test_a_floor_is_a_version_that_the_tests_run_with(requirement):
    (specifier,) = requirement.specifier
    assert specifier.operator == ">="
    assert LOWEST[canonicalize_name(requirement.name)] == Version(specifier.version)


@each_requirement
def test_the_current_versions_are_allowed(requirement):
    assert CURRENT[canonicalize_name(requirement.name)] in requirement.specifier


def test_pytest_accepts_its_own_floor():
    (floor,) = [one for one in named() if one.name == "pytest"]
    assert PYPROJECT["tool"]["pytest"]["ini_options"]["minversion"] in floor.specifier


def test_the_lowest_python_is_one_that_the_classifiers_name():
    stated = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if ":: 3." in line]
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert stated == sorted(stated, key=Version)
    assert all(version in allowed for version in stated)
    assert PROJECT["requires-python"] == f">={stated[0]}"
