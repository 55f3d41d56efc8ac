"""`steer` in Python: shares of images before and after."""

import json
from pathlib import Path

import pytest
from planted_dit import RELATIONAL
from typer.testing import CliRunner

from attnsearch.api.steer import SteeredShares, steer
from attnsearch.cli.application import app
from attnsearch.errors import ConfigError
from attnsearch.models import Checkpoint, save_checkpoint

QUICK = {"seeds": 1, "steps": 1, "guidance": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def found(planted: Checkpoint) -> SteeredShares:
    return steer(planted, RELATIONAL, **QUICK)


def test_objects_are_moved_to_the_opposite(found: SteeredShares) -> None:
    shares = {row.measure: row for row in found}
    target, asked = shares["target"], shares["asked"]
    assert (target.before, target.after, asked.before, asked.after) == (0, 1, 1, 0)
    assert target.after_low < 1 == target.after_high
    assert "to the opposite" in found.title


def test_it_is_a_table_of_numbers(found: SteeredShares, tmp_path: Path) -> None:
    assert found.to_pandas()["after"].tolist() == [row.after for row in found]
    assert found.to_xarray()["images"].sizes == {"row": len(found)}
    lines = found.save(tmp_path / "shares.csv").read_text().splitlines()
    assert lines[0].split(",")[:2] == ["measure", "before"]
    assert len(lines) == 1 + len(found)


def test_the_command_prints_the_same(
    found: SteeredShares, planted: Checkpoint, tmp_path: Path
) -> None:
    path, file = tmp_path / "planted.pt", tmp_path / "shares.json"
    save_checkpoint(planted, path)
    how = ["--seeds", "1", "--steps", "1", "--guidance", "1", "-o", str(file), "--json"]
    words = ["steer", str(path), "--head", str(RELATIONAL), *how]
    printed = json.loads(CliRunner().invoke(app, words).stdout)
    assert printed == json.loads(file.read_text()) == found.records()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "`heads`"),
        ({"heads": "L1H2", "roles": "relation"}, "`roles`"),
        ({"heads": "L1H2", "to": "beside"}, "no relation 'beside'"),
        ({"heads": "L1H2", "strength": 2.0}, "the tag of a prompt is whole"),
        ({"heads": "L1H2", "tag": "text"}, "no tag 'text'"),
        ({"heads": "L1H2", "lender": "words"}, "no lender 'words'"),
        ({"heads": "L8H0"}, "no head L8H0"),
        ({"roles": ["verb"]}, "no role 'verb'"),
    ],
)
def test_errors_name_parameters(
    planted: Checkpoint, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        steer(planted, **arguments, **QUICK)
    assert "--" not in str(refused.value)
