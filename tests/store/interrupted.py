"""Write a scan again and again in children that are killed; run by `test_resume`.

Usage: interrupted.py FOLDER. One store a way of dying lies in FOLDER afterwards, each finished by
a last child that nobody killed, beside the store `reference`. Nothing is killed in `reference`.
"""

import os
import random
import runpy
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from attnsearch.store.ledger import Ledger

OPERATIONS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate")

scan = runpy.run_path(str(Path(__file__).with_name("conftest.py")))["make_scan"]()


def die_at(occurrence: int, part: str) -> None:
    """Kill this process before its n-th file operation on a path that contains `part`."""
    left = occurrence

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in OPERATIONS and isinstance(arguments[0], str | os.PathLike):
            path = os.fspath(arguments[0])
            if isinstance(path, str) and part in path:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def write(store: Path, acknowledged: Path) -> None:
    writer = scan.open(store)
    for index in range(writer.committed, scan.layout.blocks):
        writer.write_block(index, scan.block(index))
        acknowledged.write_text(str(index + 1))
    writer.finalise()


def in_child(action: Callable[[], None], *, kill_after: float | None = None) -> bool:
    """Run in a forked child; whether it was killed."""
    child = os.fork()
    if child == 0:
        # A kill leaves what was written in the page cache, so waiting for the disk proves nothing.
        os.fsync = lambda _: None
        try:
            action()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert status == 0, "a child failed"
    return False


def assert_nothing_lost(store: Path, acknowledged: Path) -> None:
    if acknowledged.exists():
        records = Ledger.load(store / "model" / "ledger.jsonl").records
        assert len(records) >= int(acknowledged.read_text() or 0), store


def trial(store: Path, occurrence: int, part: str) -> bool:
    """Kill at the given operation, then finish; whether the operation was ever reached."""
    acknowledged = store.with_suffix(".acknowledged")
    died = in_child(lambda: (die_at(occurrence, part), write(store, acknowledged))[1])
    assert_nothing_lost(store, acknowledged)
    in_child(lambda: write(store, acknowledged))
    return died


def ever_again(store: Path) -> int:
    """Kill until the scan is finished, each time a little later; how often it died."""
    acknowledged = store.with_suffix(".acknowledged")
    for deaths in range(100):
        # A group is built in one go, so a fixed number of operations would never get past that.
        limit = 50 + 60 * deaths
        if not in_child(lambda: (die_at(limit, ""), write(store, acknowledged))[1]):  # noqa: B023
            return deaths
        assert_nothing_lost(store, acknowledged)
    raise AssertionError("never finished")


def main(folder: Path) -> None:
    started = time.monotonic()
    in_child(lambda: write(folder / "reference", folder / "reference.acknowledged"))
    duration = time.monotonic() - started
    rng = random.Random(0)

    deaths = 0
    for occurrence in (1, 2, 3, 4, *rng.sample(range(5, 330), 10)):
        deaths += trial(folder / f"any{occurrence}", occurrence, str(folder))
    # Between the last chunk of a block and its line in the ledger, and while the group appears.
    named = [("ledger.jsonl", n) for n in (2, 3, 4, 5)]
    named += [("model.partial/zarr.json", 2), ("model/peak/c.1", 1), ("model/thumbnail/c.2", 1)]
    for number, (part, occurrence) in enumerate(named):
        died = trial(folder / f"named{number}", occurrence, part)
        assert died, (part, occurrence)
        deaths += died
    repeated = ever_again(folder / "again")
    assert repeated >= 3, repeated
    for number in range(4):
        store = folder / f"timed{number}"
        acknowledged = store.with_suffix(".acknowledged")
        moment = rng.uniform(0, duration)
        deaths += in_child(lambda: write(store, acknowledged), kill_after=moment)  # noqa: B023
        assert_nothing_lost(store, acknowledged)
        in_child(lambda: write(store, acknowledged))  # noqa: B023
    print(deaths + repeated)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
