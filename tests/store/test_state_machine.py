"""A store under everything that may happen to it, against a dictionary that nothing happens to."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from budget import examples
from hypothesis import Phase
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from attnsearch.errors import StoreError
from attnsearch.store import (
    Turn,
    open_store,
    publish,
    remove,
    rename,
    repair,
    scan_names,
    verify,
)

blocks = st.integers(0, 3)
names = st.sampled_from(["a", "b", "c"])
"""Of scans beside the one that is written. They come before it in the alphabet."""


SOURCES = {"a": 1, "b": 2}


class _CrashError(BaseException):
    """Stands for a kill: nothing of ours may catch it."""


def machine_of(make, folder):
    """The machine for a scan of four blocks, the last of them short, and others beside it.

    The others come from stores in `folder`, and differ in their numbers of samples.
    """
    for name, samples in SOURCES.items():
        make(samples=samples, block=2, layers=1, heads=1, steps=1).write(folder / name, name)
    scan = make(samples=7, block=2, layers=1, heads=1, steps=1, flagged=(5,))
    whole = {
        name: scan.whole(name).astype(np.float16 if name == "sketch" else None, copy=False)
        for name in ("sketch", "entropy", "thumbnail")
    }

    class StoreMachine(RuleBasedStateMachine):
        @initialize()
        def begin(self):
            self.folder = Path(tempfile.mkdtemp())
            self.store = self.folder / "store"
            self.written: set[int] = set()
            """The model: blocks that are acknowledged and undamaged."""
            self.damaged: set[int] = set()
            """Blocks that are recorded and whose files were harmed."""
            self.others: dict[str, int] = {}
            """Scans beside it: how many samples they have."""
            self.begin_scan()

        def begin_scan(self):
            self.writer = scan.open(self.store)
            self.second = scan.open(self.store)

        def writers(self):
            return (self.writer, self.second)

        def teardown(self):
            for writer in self.writers():
                writer.release()
            shutil.rmtree(self.folder)

        def file(self, block, array):
            specs = scan.layout.arrays()
            return self.store / "model" / specs[array % len(specs)].file(block)

        @rule(block=blocks)
        def write_block(self, block):
            if block in self.written | self.damaged:
                with pytest.raises(ValueError, match="written already"):
                    self.writer.write_block(block, scan.block(block))
            elif self.second_has(block):
                with pytest.raises(StoreError, match="being written by process"):
                    self.writer.write_block(block, scan.block(block))
            else:
                self.writer.write_block(block, scan.block(block))
                self.written.add(block)

        def second_has(self, block):
            return (self.store / ".writing" / f"model@{block}.lock").exists() and (
                self.writer.claim(block) is Turn.TAKEN
            )

        @rule(block=blocks)
        def second_writer_claims(self, block):
            there = block in self.written | self.damaged
            turn = self.second.claim(block)
            assert (turn is Turn.DONE) == there

        @rule(block=blocks)
        def second_writer_writes(self, block):
            if self.second.claim(block) is Turn.OURS:
                self.second.write_block(block, scan.block(block))
                self.written.add(block)

        @rule(block=blocks, operation=st.integers(1, 40))
        def crash(self, block, operation):
            """The process dies before its n-th operation on the disk, and comes back."""
            if self.writer.claim(block) is Turn.OURS:
                left = operation

                def count(*_):
                    nonlocal left
                    left -= 1
                    if left == 0:
                        raise _CrashError

                with pytest.MonkeyPatch.context() as patch:
                    for name in ("fsync", "rename", "unlink"):
                        real = getattr(os, name)
                        patch.setattr(
                            os, name, lambda *a, real=real, **k: (count(), real(*a, **k))[1]
                        )
                    try:
                        self.writer.write_block(block, scan.block(block))
                        self.written.add(block)
                    except _CrashError:
                        pass
            if block in self.writer.committed() and block not in self.damaged:
                self.written.add(block)  # it lasts, though nobody was told
            self.resume()

        @rule()
        def resume(self):
            for claim in self.writer._claims.values():
                os.close(claim._descriptor)  # what the system does for the dead
            self.writer._claims.clear()
            if self.missing_or_short():
                with pytest.raises(StoreError, match="damaged"):
                    scan.open(self.store)
            else:
                self.writer = scan.open(self.store)

        def missing_or_short(self):
            return any(
                not self.file(block, array).exists() or self.file(block, array).stat().st_size == 0
                for block in self.damaged
                for array in range(len(scan.layout.arrays()))
            )

        @rule(block=blocks, cut=st.floats(0, 1, exclude_max=True))
        def truncate_ledger(self, block, cut):
            single = self.store / "model" / "ledger" / f"{block}.json"
            if single.exists():
                data = single.read_bytes()
                single.write_bytes(data[: int(cut * len(data))])
                self.written.discard(block)
                self.damaged.discard(block)

        @rule(cut=st.floats(0, 1, exclude_max=True))
        def truncate_packed_ledger(self, cut):
            packed = self.store / "model" / "ledger" / "blocks.jsonl"
            if packed.exists():
                data = packed.read_bytes()
                kept = data[: int(cut * len(data))]
                packed.write_bytes(kept)
                single = {block for block in range(4) if (packed.parent / f"{block}.json").exists()}
                lines = set(range(kept.count(b"\n"))) | single
                # All blocks were packed in order, so the line of a block is its number.
                self.written &= lines
                self.damaged &= lines

        @rule(block=blocks, array=st.integers(0, 20), position=st.floats(0, 1, exclude_max=True))
        def flip_byte(self, block, array, position):
            file = self.file(block, array)
            if block in self.written and file.exists():
                data = bytearray(file.read_bytes())
                data[int(position * len(data))] ^= 0x40
                file.write_bytes(data)
                self.written.discard(block)
                self.damaged.add(block)

        @rule(block=blocks, array=st.integers(0, 20))
        def drop_chunk(self, block, array):
            file = self.file(block, array)
            if block in self.written | self.damaged and file.exists():
                file.unlink()
                self.written.discard(block)
                self.damaged.add(block)

        @rule(name=st.sampled_from(sorted(SOURCES)))
        def merge(self, name):
            there = self.others.get(name)
            if there not in (None, SOURCES[name]):
                with pytest.raises(StoreError, match=f"different scan called {name}"):
                    publish(folder / name, self.store)
            else:
                assert publish(folder / name, self.store) == ([name] if there is None else [])
                self.others[name] = SOURCES[name]

        @rule(name=names)
        def remove_a_scan(self, name):
            if self.others.pop(name, None) is None:
                with pytest.raises(StoreError, match="no scan called"):
                    remove(self.store, name)
            else:
                remove(self.store, name)

        @rule(name=names, to=st.one_of(names, st.just("model")))
        def rename_a_scan(self, name, to):
            free = name in self.others and to not in {"model", *self.others}
            if not free:
                with pytest.raises(
                    StoreError, match=r"no scan|another scan|a copy|so already|being"
                ):
                    rename(self.store, name, to)
            else:
                rename(self.store, name, to)
                self.others[to] = self.others.pop(name)

        @rule(name=names)
        def remove_a_folder(self, name):
            if self.others.pop(name, None) is not None:
                shutil.rmtree(self.store / name)

        @rule(name=names, to=names)
        def rename_a_folder(self, name, to):
            if name in self.others and to not in self.others:
                (self.store / name).rename(self.store / to)
                self.others[to] = self.others.pop(name)

        def claimed(self):
            return any(writer._claims for writer in self.writers())

        @rule(plainly=st.booleans())
        def remove_the_scan(self, plainly):
            """The one that is written; then it is begun anew."""
            if plainly:
                shutil.rmtree(self.store / "model")
            elif self.claimed():
                with pytest.raises(StoreError, match="being written by process"):
                    remove(self.store, "model")
                return
            else:
                remove(self.store, "model")
            for writer in self.writers():
                with pytest.raises(StoreError, match=r"scan model of .* is gone"):
                    writer.finalise()
                writer.release()
            assert not (self.store / "model").exists()
            self.written, self.damaged = set(), set()
            self.begin_scan()

        @rule()
        def rename_the_scan_and_back(self):
            if self.claimed():
                with pytest.raises(StoreError, match="being written by process"):
                    rename(self.store, "model", "z")
                return
            rename(self.store, "model", "z")
            for writer in self.writers():
                with pytest.raises(StoreError, match=r"scan model of .* is gone"):
                    writer.finalise()
            rename(self.store, "z", "model")

        @rule()
        def move_the_store_and_back(self):
            moved = self.folder / "moved"
            self.store.rename(moved)
            for writer in self.writers():
                with pytest.raises(StoreError, match="store is gone"):
                    writer.finalise()
                for block in range(4):
                    with pytest.raises(StoreError, match="store is gone"):
                        writer.write_block(block, scan.block(block))
            assert not self.store.exists()
            moved.rename(self.store)

        @rule()
        def finalise(self):
            self.writer.finalise()

        @rule()
        def repair(self):
            checks = verify(self.store)
            lost = [finding.block for finding in checks[-1].findings if checks[-1].scan]
            if any(block in writer._claims for block in lost for writer in self.writers()):
                with pytest.raises(StoreError, match="being written by process"):
                    repair(self.store, checks)
            for writer in self.writers():
                writer.release()
            repair(self.store, verify(self.store))
            self.damaged.clear()

        @rule()
        @precondition(lambda self: not self.damaged)
        def open_in_xarray(self):
            plain = xr.open_zarr(self.store, group="model")
            for block in self.written:
                rows = scan.layout.block_slice(block)
                for name, values in whole.items():
                    self.compare(plain[name].values[rows], values[rows], rows)

        def compare(self, found, expected, rows):
            kept = ~np.isin(np.arange(rows.start, rows.stop), scan.flagged)
            np.testing.assert_array_equal(found[kept], expected[kept])

        @invariant()
        def what_is_written_is_read(self):
            dataset = open_store(self.store)["model"].to_dataset()
            shown = dataset["sample"].values.tolist()
            expected = [
                row
                for block in sorted(self.written | self.damaged)
                for row in range(*scan.layout.block_slice(block).indices(7))
                if row not in scan.flagged
            ]
            assert shown == expected
            for block in self.written:
                rows = [row for row in shown if row // 2 == block]
                first = shown.index(rows[0])
                part = dataset.isel(sample=slice(first, first + len(rows)))
                for name, values in whole.items():
                    np.testing.assert_array_equal(part[name].values, values[rows])

        @invariant()
        def damage_is_known(self):
            *others, own = verify(self.store)
            found = {finding.block for finding in own.findings if finding.block is not None}
            assert found >= self.damaged
            assert not found & self.written
            stale = {finding.what for check in others for finding in check.findings}
            assert not [finding for check in others for finding in check.findings if finding.damage]
            assert all("list of scans" in what for what in stale)
            metadata = json.loads((self.store / "zarr.json").read_bytes())
            listed = set(metadata["consolidated_metadata"]["metadata"])
            assert bool(stale) == ({n for n in listed if "/" not in n} != {"model", *self.others})

        @invariant()
        def the_scans_are_there(self):
            assert scan_names(self.store) == sorted([*self.others, "model"])
            tree = open_store(self.store)
            assert {name: tree[name].sizes["sample"] for name in self.others} == self.others

    return StoreMachine


def test_a_store_is_what_its_model_says(make, tmp_path):
    run_state_machine_as_test(
        machine_of(make, tmp_path),
        settings=examples(
            3,
            deep=100,
            stateful_step_count=25,
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
        ),
    )
