"""What failed is told, what was acquired is let go of, and files take their places whole."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from attnsearch.aggregation import cache
from attnsearch.cleanup import on_error, placed
from attnsearch.cli.stopping import stoppable
from attnsearch.clustering import neighbours
from attnsearch.encoders.cache import EmbeddingCache
from attnsearch.errors import AttnsearchError
from attnsearch.experiments.folder import write_json
from attnsearch.intake.files import open_regular
from attnsearch.models import save_checkpoint
from attnsearch.tables import Column, Table
from attnsearch.training import run


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


def test_what_failed_first_is_told_whatever_becomes_of_undoing():
    undone = []
    with pytest.raises(KeyError), on_error(lambda: undone.append(1)):
        raise KeyError
    with on_error(lambda: undone.append(2)):
        pass
    with pytest.raises(KeyboardInterrupt), on_error(failing(OSError())):
        raise KeyboardInterrupt
    assert undone == [1]


def test_a_file_takes_its_place_or_nothing_changes(tmp_path):
    path, unplaced = tmp_path / "file", tmp_path / "unplaced"
    with placed(path, unplaced) as file:
        file.write_text("first")
    with pytest.raises(KeyError), placed(path, unplaced) as file:
        raise KeyError(file.write_text("second"))
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def json_file(folder, monkeypatch, checkpoint):
    write_json(folder / "file", {"a": 1})


def checkpoint_file(folder, monkeypatch, checkpoint):
    save_checkpoint(checkpoint, folder / "file")


def kept_states(folder, monkeypatch, checkpoint):
    none = np.zeros(1)
    cache.save(folder, "file", cache.Entry(blocks={}, together="", samples=none, states=()))


class Numbers(Table):
    columns = (Column("a", str),)

    def record(self, row):
        return {"a": row}


def table_file(suffix, folder, monkeypatch, checkpoint):
    Numbers([1.0], "numbers").save(folder / f"file{suffix}")


def kept_signatures(folder, monkeypatch, checkpoint):
    signatures = import_module("attnsearch.clustering.signatures")  # a function has its name
    found = ("file", [], np.zeros((1, 2)))
    monkeypatch.setattr(signatures, "_heads", lambda _: [])
    monkeypatch.setattr(signatures, "_of_scan", lambda *_: found)
    signatures._kept(folder, "file", Empty(), None)


class Empty(dict):
    """A scan of nothing."""

    attrs: ClassVar[dict[str, Any]] = {}


def kept_graph(folder, monkeypatch, checkpoint):
    rows = np.eye(40, 8, dtype=np.float32)
    neighbours._graph(rows, folder)


def kept_embedding(folder, monkeypatch, checkpoint):
    EmbeddingCache(folder, "encoder", (2, 3)).write("a prompt", torch.zeros(2, 3))


WRITERS = [
    json_file,
    checkpoint_file,
    kept_states,
    partial(table_file, ".csv"),
    partial(table_file, ".json"),
    partial(table_file, ".parquet"),
    partial(table_file, ".html"),
    kept_signatures,
    kept_graph,
    kept_embedding,
]


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_that_cannot_take_its_place_is_removed(
    write: Callable[..., None], tmp_path: Path, monkeypatch, tiny_checkpoint
):
    write(tmp_path, monkeypatch, tiny_checkpoint)
    assert len(list(tmp_path.iterdir())) == 1
    for path in tmp_path.iterdir():
        path.unlink()
    for error in (OSError(5, "Input/output error"), KeyboardInterrupt(), ValueError()):
        with monkeypatch.context() as patch, suppress(AttnsearchError, type(error)):
            patch.setattr(os, "replace", failing(error))
            write(tmp_path, patch, tiny_checkpoint)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["fstat", "fdopen"])
def test_a_file_that_cannot_be_looked_at_is_closed(call, tmp_path, monkeypatch, open_below):
    path = tmp_path / "file"
    path.touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(OSError(5, "Input/output error")))
        with pytest.raises(OSError, match="Input/output"):
            open_regular(path)
    assert open_below(tmp_path) == []


@pytest.mark.parametrize("changed", [stoppable, run._interrupts_put_off])
@pytest.mark.parametrize("failing_one", range(3))
def test_a_handler_that_cannot_be_put_back_keeps_none_of_the_others(
    changed, failing_one, monkeypatch
):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    real = signal.signal
    before = {number: real(number, lambda *_: None) for number in numbers}
    ours = {number: signal.getsignal(number) for number in numbers}
    put_back = []

    def refuse(number, handler):
        if handler is ours[number]:
            put_back.append(number)
            if len(put_back) == failing_one + 1:
                raise OSError("this one stays")
        return real(number, handler)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(signal, "signal", refuse)
            with pytest.raises(OSError, match="this one stays"), changed():
                assert all(signal.getsignal(each) is not ours[each] for each in numbers)
        left = [each for each in numbers if signal.getsignal(each) is not ours[each]]
        assert left == [put_back[failing_one]]
    finally:
        for number, handler in before.items():
            real(number, handler)
