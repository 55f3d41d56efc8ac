"""What was computed once is not read again, and never answers for anything else."""

import json
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import xarray as xr
from budget import DEEP
from distributed import LocalCluster

from attnsearch.aggregation import Aggregator, Attention, Moments, Plan, RegionScore, Stored
from attnsearch.aggregation.quantities import Quantity
from attnsearch.errors import MetricError
from attnsearch.scheduling import Scheduler
from attnsearch.store import blocks, open_scan, repair, verify
from attnsearch.store.local import LocalStorage

KEEP = ("relation", "step", "layer", "head", "basis")
RELATION = Attention(roles=("relation",))


class Watcher:
    """Counts pieces that are read."""

    def __init__(self) -> None:
        self.pieces = 0

    @contextmanager
    def __call__(self, pieces: int) -> Iterator[Callable[[int], None]]:
        def advance(count: int) -> None:
            self.pieces += count

        yield advance


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
def aggregate(watcher: Watcher) -> Aggregator:
    return Aggregator(watch=watcher, worth_keeping=0)


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes that are read from the files of blocks."""
    found: list[int] = []
    read = LocalStorage.read_parts

    def counted(self: LocalStorage, name: str, spans: Any) -> list[bytes]:
        parts = read(self, name, spans)
        found.extend(map(len, parts))
        return parts

    monkeypatch.setattr(LocalStorage, "read_parts", counted)
    return found


@pytest.fixture
def store(tmp_path: Path, make: Callable[..., Any]) -> Path:
    path = tmp_path / "store.zarr"
    make(samples=20, block=3, flagged=(4,)).write(path)
    return path


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Any]) -> Path:
    path = tmp_path_factory.mktemp("large") / "store.zarr"
    make(samples=400, steps=4, layers=4, heads=16, order=3, block=16).write(path)
    return path


def reference(store: Path) -> xr.Dataset:
    scan = open_scan(store).load()
    return Aggregator()(scan, RELATION, KEEP)


def test_an_answer_is_that_of_the_maps(store: Path) -> None:
    scan = open_scan(store)
    found = Aggregator()(scan, RELATION, KEEP)
    maps = scan["sketch"].sel(branch="cond", role="relation").astype(np.float64).load()
    means = maps.groupby("relation").mean().sel(relation=found["relation"])
    variances = maps.groupby("relation").var().sel(relation=found["relation"])
    np.testing.assert_allclose(found["mean"], means.transpose(*KEEP), rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(found["variance"], variances.transpose(*KEEP), rtol=1e-9)
    assert int(found["count"].isel(step=0, layer=0, head=0, basis=0).sum()) == 19


def test_the_second_time_nothing_is_read(
    store: Path, aggregate: Aggregator, watcher: Watcher, read_bytes: list[int]
) -> None:
    first = aggregate(open_scan(store), RELATION, KEEP)
    assert watcher.pieces
    assert read_bytes
    watcher.pieces = 0
    read_bytes.clear()
    second = aggregate(open_scan(store), RELATION, KEEP)
    xr.testing.assert_identical(first, second)
    assert watcher.pieces == 0
    assert not read_bytes


def test_a_scan_that_grew_is_read_where_it_did(
    tmp_path: Path, make: Callable[..., Any], aggregate: Aggregator, read_bytes: list[int]
) -> None:
    store = tmp_path / "store.zarr"
    scan = make(samples=20, block=2, flagged=(11,))
    scan.write(store, blocks=7)
    aggregate(open_scan(store), RELATION, KEEP)
    seven = sum(read_bytes)
    read_bytes.clear()
    scan.write(store)
    found = aggregate(open_scan(store), RELATION, KEEP)
    assert 0 < sum(read_bytes) < seven  # three blocks
    xr.testing.assert_allclose(found, reference(store), rtol=1e-12, atol=1e-15)
    read_bytes.clear()
    aggregate(open_scan(store), RELATION, KEEP)
    assert not read_bytes


@pytest.mark.parametrize("keep", [KEEP, ("prompt", "basis"), ("sample", "step"), ()])
def test_blocks_may_come_in_any_order(
    tmp_path: Path, make: Callable[..., Any], aggregate: Aggregator, keep: tuple[str, ...]
) -> None:
    store = tmp_path / "store.zarr"
    scan = make(samples=20, block=3)
    for some in ((4, 2), (5, 0), (6, 1, 3)):
        with scan.open(store) as writer:
            for block in some:
                writer.claim(block)
                writer.write_block(block, scan.block(block))
        found = aggregate(open_scan(store), RELATION, keep)
        expected = Aggregator()(open_scan(store).load(), RELATION, keep)
        xr.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


def test_what_grew_by_nothing_but_flagged_samples_stays_as_it_was(
    tmp_path: Path, make: Callable[..., Any], aggregate: Aggregator
) -> None:
    store = tmp_path / "store.zarr"
    scan = make(samples=6, block=2, flagged=(4, 5))
    scan.write(store, blocks=2)
    first = aggregate(open_scan(store), RELATION, KEEP)
    scan.write(store)
    xr.testing.assert_identical(first, aggregate(open_scan(store), RELATION, KEEP))


def test_a_block_that_was_damaged_and_done_again_counts_once(
    store: Path, make: Callable[..., Any], aggregate: Aggregator
) -> None:
    first = aggregate(open_scan(store), RELATION, KEEP)
    victim = sorted((store / "model" / "sketch").glob("c.*"))[1]
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    repair(store, verify(store))
    fewer = aggregate(open_scan(store), RELATION, KEEP)
    assert fewer["count"].sum() < first["count"].sum()
    make(samples=20, block=3, flagged=(4,)).write(store)
    again = aggregate(open_scan(store), RELATION, KEEP)
    xr.testing.assert_allclose(again, first, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    "change",
    [
        lambda scan: scan.isel(sample=slice(0, 9)),
        lambda scan: scan.isel(step=[1]),
        lambda scan: scan.assign(sketch=2 * scan["sketch"]),
        lambda scan: scan.assign_coords(relation=("sample", scan["relation"].to_numpy()[::-1])),
        lambda scan: scan.assign_coords(role=scan["role"].to_numpy()[::-1]),
        lambda scan: scan.assign_attrs(grid=[1, 1]),
    ],
    ids=["samples", "steps", "values", "groups", "roles", "attributes"],
)
def test_another_scan_is_not_answered_for(
    store: Path, aggregate: Aggregator, change: Callable[[xr.Dataset], xr.Dataset]
) -> None:
    scan = open_scan(store)
    aggregate(scan, RELATION, KEEP)
    changed = change(scan)
    expected = Aggregator()(changed.load(), RELATION, KEEP)
    for _ in range(2):
        found = aggregate(change(open_scan(store)), RELATION, KEEP)
        xr.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    xr.testing.assert_allclose(
        aggregate(open_scan(store), RELATION, KEEP), reference(store), rtol=1e-12, atol=1e-15
    )


def damage(data: bytes) -> Iterator[bytes]:
    yield b""
    yield data[: len(data) // 2]
    yield data[:-1] + bytes([data[-1] ^ 1])
    yield data.replace(b"\n", b"\n\n", 1)


def test_an_entry_that_is_damaged_is_none(store: Path, aggregate: Aggregator) -> None:
    first = aggregate(open_scan(store), RELATION, KEEP)
    (entry,) = (store / ".cache").iterdir()
    whole = entry.read_bytes()
    for bad in damage(whole):
        entry.write_bytes(bad)
        xr.testing.assert_identical(aggregate(open_scan(store), RELATION, KEEP), first)
        assert entry.read_bytes() == whole


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("blocks", []),
        ("blocks", [[0, 5]]),
        ("blocks", None),
        ("arrays", []),
        ("arrays", [["samples", "<i8", [-1]]]),
        ("arrays", [["samples", "<i8", [2**60]]]),
        ("arrays", [["samples", "O", [1]]]),
        ("arrays", [["samples", "<i8", [1, 1]], ["0.mean", "<f8", [1]]]),
        ("together", ""),
    ],
)
def test_an_entry_that_claims_what_cannot_be_is_none(
    store: Path, aggregate: Aggregator, field: str, value: object
) -> None:
    first = aggregate(open_scan(store), RELATION, KEEP)
    (entry,) = (store / ".cache").iterdir()
    _, header, numbers = entry.read_bytes().split(b"\n", 2)
    rest = json.dumps(json.loads(header) | {field: value}).encode() + b"\n" + numbers
    entry.write_bytes(b"%08x\n" % crc32(rest) + rest)  # with the right checksum
    xr.testing.assert_identical(aggregate(open_scan(store), RELATION, KEEP), first)


def test_an_entry_of_another_form_is_none(store: Path, aggregate: Aggregator) -> None:
    first = aggregate(open_scan(store), RELATION, KEEP)
    (entry,) = (store / ".cache").iterdir()
    aggregate(open_scan(store), RELATION, ("relation", "step"))
    (other,) = {*(store / ".cache").iterdir()} - {entry}
    shutil.copy(other, entry)  # whole, and of the same blocks, but no answer to this
    xr.testing.assert_identical(aggregate(open_scan(store), RELATION, KEEP), first)


def test_a_store_that_cannot_be_written_is_read(
    store: Path, aggregate: Aggregator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "mkdir", refused)
    aggregate(open_scan(store), RELATION, KEEP)
    assert not (store / ".cache").exists()


def test_little_is_not_worth_keeping(store: Path) -> None:
    Aggregator()(open_scan(store), RELATION, KEEP)
    assert not (store / ".cache").exists()


def test_what_is_kept_is_no_part_of_the_store(store: Path, aggregate: Aggregator) -> None:
    aggregate(open_scan(store), RELATION, KEEP)
    assert (store / ".cache").is_dir()
    assert not [finding for check in verify(store) for finding in check.findings]
    assert set(xr.open_datatree(store, engine="zarr").children) == {"model"}


def test_old_entries_make_room(
    store: Path, aggregate: Aggregator, monkeypatch: pytest.MonkeyPatch
) -> None:
    aggregate(open_scan(store), RELATION, KEEP)
    (first,) = (store / ".cache").iterdir()
    monkeypatch.setattr("attnsearch.aggregation.cache._ALL_BYTES", first.stat().st_size + 100)
    aggregate(open_scan(store), RELATION, ("step", "basis"))
    assert len(list((store / ".cache").iterdir())) == 2 or not first.exists()
    aggregate(open_scan(store), Attention(roles=("colour1",)), KEEP)
    assert not first.exists()


def test_wherever_tasks_run_the_bits_are_the_same(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attnsearch.store.lazy._PIECE_BYTES", 1)  # a piece a block
    expected = Aggregator()(open_scan(store), RELATION, KEEP)
    with Scheduler.parse("processes").open() as runner:
        xr.testing.assert_identical(
            Aggregator(runner=runner)(open_scan(store), RELATION, KEEP), expected
        )
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        Scheduler.parse(cluster.scheduler_address).open() as runner,
    ):
        xr.testing.assert_identical(
            Aggregator(runner=runner)(open_scan(store), RELATION, KEEP), expected
        )


@pytest.mark.parametrize(
    ("quantity", "keep"),
    [
        (RELATION, KEEP),
        (Attention(roles=("colour1", "shape2")), ("basis",)),
        (RegionScore(region="object1", roles=("relation",)), ("prompt", "head", "measure")),
        (Stored(name="entropy"), ("layer", "head")),
        (Stored(name="energy"), ("sample", "role")),
        (Stored(name="score_shape"), ("relation",)),
    ],
)
@pytest.mark.parametrize("piece", [1, pytest.param(2**22, marks=pytest.mark.deep), 2**27])
def test_no_more_is_taken_than_was_planned(
    large: Path,
    monkeypatch: pytest.MonkeyPatch,
    read_bytes: list[int],
    quantity: Quantity,
    keep: tuple[str, ...],
    piece: int,
) -> None:
    monkeypatch.setattr("attnsearch.store.lazy._PIECE_BYTES", piece)
    for module in ("algebra", "planning"):
        monkeypatch.setattr(f"attnsearch.aggregation.{module}.SLAB_BYTES", 2**16)
    tasks: list[object] = []

    class Counting:
        dashboard = ""

        def run(self, parts: Any, whole: Any, advance: Any) -> Any:
            tasks.extend(key for key in whole.dask if "combine" in str(key))
            return Scheduler().open().__enter__().run(parts, whole, advance)

    scan = open_scan(large)
    watcher = Watcher()
    aggregator = Aggregator(runner=Counting(), watch=watcher)
    plan = aggregator.plan(scan, quantity, keep)
    aggregator(scan, quantity, keep)  # what the first use imports is not planned
    read_bytes.clear()
    tasks.clear()
    watcher.pieces = 0
    tracemalloc.start()
    aggregator(scan, quantity, keep)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0 < sum(read_bytes) <= plan.bytes
    assert plan.bytes <= 4 * sum(read_bytes) + 2**18
    assert watcher.pieces == plan.pieces
    assert plan.pieces <= plan.tasks
    assert len(tasks) <= plan.tasks - plan.pieces + 1
    assert plan.values == quantity.of(scan).size
    if DEEP:  # when the collector runs, and which pieces are read at once, differs from run to run
        program = 2**20  # Python objects, such as the graph of the tasks
        assert peak <= plan.memory(workers=2) + program
        assert plan.memory(workers=2) <= 8 * (peak + program)


def test_the_plan_of_a_scan_in_memory_reads_nothing(store: Path) -> None:
    plan: Plan = Aggregator().plan(open_scan(store).load(), RELATION, KEEP, (Moments(),))
    assert (plan.pieces, plan.bytes) == (1, 0)


def test_a_scan_without_samples_says_so(store: Path) -> None:
    with pytest.raises(MetricError, match="no samples"):
        Aggregator()(open_scan(store).isel(sample=[]), RELATION, KEEP)


def test_pieces_of_several_blocks_are_decoded_once(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    read = blocks.BlockReader.read

    def counted(self: blocks.BlockReader, block: int, *rest: Any) -> None:
        decoded.append(block)
        read(self, block, *rest)

    monkeypatch.setattr(blocks.BlockReader, "read", counted)
    Aggregator()(open_scan(store), RELATION, KEEP)
    assert sorted(decoded) == list(range(7))
