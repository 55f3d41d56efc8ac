"""Files of prompts."""

import json

import pytest

from attnsearch.errors import PromptError
from attnsearch.prompts import files, read_prompts


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path) -> str:
    with pytest.raises(PromptError) as caught:
        read_prompts(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_a_text_file_has_a_prompt_on_every_line_that_is_not_blank_nor_a_comment(tmp_path):
    content = "\ufeff# mine\r\n\r\n  a {shape:square} \r\n  # more\na cat\na cat"
    prompts = read_prompts(write(tmp_path, "prompts.txt", content))
    assert [prompt.text for prompt in prompts] == ["a square", "a cat", "a cat"]
    assert prompts[0].attributes == {"shape": "square"}
    assert prompts[1] == prompts[2]


def test_a_json_file_keeps_texts_with_any_character(tmp_path):
    texts = ["# one\u2028{two}", "three\nfour \U0001f600"]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    path = write(tmp_path, "prompts.JSONL", "\n\n".join(lines) + "\n")
    assert [prompt.text for prompt in read_prompts(path)] == texts


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", "fine\n\na {shape:square", "line 3: the brace at column 3"),
        ("a.txt", "fine\n{Shape:square}", "line 2: 'Shape' is not"),
        ("a.jsonl", '{"text": "fine"}\n{"text": 1}', "line 2: text must be a string, not 1"),
        ("a.jsonl", '{"text": "fine"}\n# no comments here', "line 2: not JSON"),
        ("a.txt", b"fine\nna\xefve", "line 2: byte 3 is not UTF-8"),
        ("a.txt", "fine\n" + "a" * 100_001, "line 2: 100,001 characters, more than the 100,000"),
        ("a.txt", "# nothing\n", "holds no prompt"),
        ("a.jsonl", "", "holds no prompt"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_mistake_is_told_with_file_line_and_culprit(tmp_path, name, content, reason):
    assert reason in refusal(write(tmp_path, name, content))


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.json", "one JSON document"), ("a.CSV", "a table"), ("a.tsv", "a table")],
)
def test_another_form_is_not_taken_for_prompts_line_by_line(tmp_path, name, form):
    path = write(tmp_path, name, "prompt,seed\na cat,1\n")
    assert refusal(path) == (
        f"{path} is {form}; prompts are read from lines of text (.txt) or JSON lines (.jsonl), "
        "one prompt a line"
    )


def test_what_cannot_be_read_is_named(tmp_path):
    assert "No such file" in refusal(tmp_path / "absent.txt")
    assert "directory" in refusal(tmp_path)


def test_the_size_of_a_file_is_bounded(tmp_path):
    path = tmp_path / "large.txt"
    with path.open("wb") as file:
        file.truncate(64 * 2**20 + 1)
    assert "larger than 64 MiB" in refusal(path)


def test_a_line_of_the_greatest_length_is_read(tmp_path):
    path = write(tmp_path, "long.txt", "a" * 100_000)
    assert len(read_prompts(path)[0].text) == 100_000


def test_the_number_of_prompts_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_PROMPTS", 2)
    assert len(read_prompts(write(tmp_path, "two.txt", "a\n\nb\n\n# end\n"))) == 2
    assert "line 3: more than 2 prompts" in refusal(write(tmp_path, "three.txt", "a\nb\nc"))
