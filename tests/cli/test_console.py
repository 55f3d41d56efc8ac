"""What reaches the terminal."""

import json

import pytest

from attnsearch.cli import console

HOSTILE = "[/red] :smile: \x1b[2J\x07 \ud800 \u202e [bold]"


def test_a_message_is_one_printable_line_of_bounded_length(capsys):
    console.fail(f"first\nsecond {HOSTILE} {'x' * 10**6} last")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(r"attnsearch: first second [/red] :smile: \x1b[2J\x07 \ud800 \u202e")
    assert line.endswith("last")
    assert len(line) < 1100
    console.note(f"picture: {HOSTILE}")
    assert r"\x1b" in capsys.readouterr().err


def test_cells_and_titles_are_letters_and_no_markup(capsys):
    console.print_table(["a", "b"], [[HOSTILE, "1"], ["plain", "22"]], title=HOSTILE, words=["a"])
    title, _, first, second = capsys.readouterr().out.splitlines()
    for line in (title, first):
        assert r"[/red] :smile: \x1b[2J\x07 \ud800 \u202e [bold]" in line
        assert line.isprintable()
    assert "plain" in second


@pytest.mark.parametrize("value", [HOSTILE, [HOSTILE], {HOSTILE: HOSTILE}])
def test_json_says_everything_in_ascii(value, capsys):
    console.print_json(value)
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    assert json.loads(out) == value
