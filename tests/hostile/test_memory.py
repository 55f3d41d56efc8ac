"""Files that claim to be far larger than they are, read by a process that may not grow much."""

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attnsearch.models import save_checkpoint

ROOT = Path(__file__).resolve().parents[2]
GROWTH = 128 * 2**20
"""Bytes a process may add to its memory after its imports."""

READER = f"""
import resource, sys
from pathlib import Path
from typer.testing import CliRunner
from attnsearch.cli import app

good, *paths = sys.argv[1:]
assert CliRunner().invoke(app, ["info", good]).exit_code == 0
pages = int(Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + {GROWTH}
resource.setrlimit(resource.RLIMIT_AS, (most, most))
resource.setrlimit(resource.RLIMIT_CPU, (100, 100))
for path in (good, *paths):
    result = CliRunner().invoke(app, ["info", path])
    print(Path(path).name, result.exit_code, result.stderr.strip() or repr(result.exception))
"""


def read(*paths: Path) -> dict[str, tuple[int, str]]:
    """Exit code and message of `info` by file, all in one such process."""
    result = subprocess.run(
        [sys.executable, "-c", READER, *map(str, paths)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "kernels")))},
    )
    assert result.returncode == 0, result.stderr[-2000:]
    told = [line.split(" ", 2) for line in result.stdout.splitlines()]
    return {name: (int(code), message) for name, code, message in told}


@pytest.fixture(scope="module")
def good(tiny_checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.pt"
    save_checkpoint(tiny_checkpoint, path)
    return path


def bomb(path: Path) -> None:
    """Half a gigabyte of zeros in half a megabyte."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("model/data.pkl", "w", force_zip64=True) as entry,
    ):
        for _ in range(32):
            entry.write(bytes(2**24))


def terabyte(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


HEADERS = {
    "depth.pt": ("model", {"depth": 10**9}),
    "deep.pt": ("model", {"depth": 1000}),
    "side.pt": ("model", {"image_side": 10**6, "patch": 1}),
    "grid.pt": ("model", {"image_side": 2048, "patch": 1}),
    "image.pt": ("model", {"image_channels": 10**9}),
    "length.pt": ("model", {"text_length": 10**9}),
    "width.pt": ("model", {"width": 2**16, "heads": 1}),
    "ratio.pt": ("model", {"mlp_ratio": 1e300}),
    "channels.pt": ("encoder", {"channels": 10**9}),
    "text.pt": ("encoder", {"text_length": 10**9}),
    "canvas.pt": ("task", {"canvas": 10**9}),
    "caption.pt": ("task", {"text_length": 10**9}),
}


def test_no_file_takes_more_memory_than_it_has_bytes(good, forged, tmp_path):
    content = torch.load(good, weights_only=True)
    for name, (field, changes) in HEADERS.items():
        torch.save(content | {field: content[field] | changes}, tmp_path / name)
    lies = {
        "numbers.pt": forged.file({"x": forged.tensor((10**12,))}),
        "strides.pt": forged.file({"x": forged.tensor((10**12,), (0,))}),
        "storage.pt": forged.file({"x": forged.tensor(storage=forged.storage(numbers=10**12))}),
        "bytes.pt": forged.file({"x": forged.call(bytearray, 10**12)}),
        "names.pt": forged.file(
            [forged.tensor((10**6,), storage=forged.storage(numbers=10**6)) for _ in range(999)],
            storages={"0": bytes(4 * 10**6)},
        ),
        "memo.pt": forged.file(pickled=b"\x80\x02Nr\xff\xff\xff\xff."),
        "array.pt": forged.file(pickled=b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f."),
        "keys.pt": forged.file(pickled=b"\x80\x02})" + b"q\x00h\x00\x86" * 60 + b"Ns."),
        "tables.pt": forged.file(pickled=b"\x80\x02" + b"}" * (8 * 2**20 - 3) + b"."),
        "entry.pt": forged.file({"x": forged.tensor()}, size=2**32 - 2, packed=2**32 - 2),
        "header.safetensors": (2**60).to_bytes(8, "little") + b"{}",
        "shape.safetensors": safetensors({"x": [10**12]}, [0, 4 * 10**12]),
        "overlap.safetensors": safetensors({f"x{k}": [10**6] for k in range(999)}, [0, 4 * 10**6]),
    }
    for name, data in lies.items():
        (tmp_path / name).write_bytes(data)
    laughs: object = 1
    for _ in range(50):
        laughs = [laughs, laughs]
    torch.save(laughs, tmp_path / "laughs.pt")
    bomb(tmp_path / "bomb.pt")
    terabyte(tmp_path / "terabyte.pt")
    terabyte(tmp_path / "terabyte.safetensors")
    told = read(good, *tmp_path.iterdir())
    assert told.pop("good.pt")[0] == 0
    assert told.keys() == {path.name for path in tmp_path.iterdir()}
    for name, (code, message) in told.items():
        assert code == 2, (name, message)
        assert message.startswith("attnsearch: "), (name, message)
        assert "allocate" not in message, (name, message)


def test_the_process_of_these_tests_may_not_grow_much(good, tiny_checkpoint, tmp_path):
    """A file that is as large as it says is too large for it."""
    weights = tiny_checkpoint.weights | {"more": torch.zeros(GROWTH // 2)}
    save_checkpoint(replace(tiny_checkpoint, weights=weights), tmp_path / "large.pt")
    code, message = read(good, tmp_path / "large.pt")["large.pt"]
    assert code == 2
    assert "allocate" in message


def safetensors(shapes: dict[str, list[int]], offsets: list[int]) -> bytes:
    """A file of float32 tensors that are all at the same place."""
    header = json.dumps(
        {
            name: {"dtype": "F32", "shape": shape, "data_offsets": offsets}
            for name, shape in shapes.items()
        }
    ).encode()
    return len(header).to_bytes(8, "little") + header + bytes(min(offsets[1], 4 * 10**6))
