"""A store in a folder of a local or shared filesystem.

Files are first written into `.writing`, forced to the disk there, renamed into place, and their
folders forced too. A claim is a file in the same folder under an exclusive `flock`: the system
lets go of it when the process ends, however it ends, so that no claim outlives its holder and a
file that nobody locks is a dead one's. Nothing here looks at a clock.
"""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from errno import ENOENT
from pathlib import Path
from stat import S_ISREG
from typing import Final

from zarr.storage import LocalStore

from attnsearch.cleanup import on_error
from attnsearch.store.storage import DERIVED, LOCK, PART, WRITING, Holder, held

_HIDDEN: Final = (WRITING, DERIVED)
_FORCED_AT_ONCE: Final = 16
_PIECE: Final = 2**20


class LocalStorage:
    """The folder `root`, which need not exist before the first claim; its parent must.

    Once it was there it is not made again: a store that was moved is not to come up anew, empty,
    where it was.
    """

    def __init__(self, root: Path) -> None:
        # Where a relative path leads is settled here, and not by where the process goes later.
        self.root = root.absolute()
        self.derived: Path | None = self.root / DERIVED
        self.place = str(self.root)
        self._called = str(root)
        self._was_there = self.root.is_dir()

    def __str__(self) -> str:
        return self._called

    def __reduce__(self) -> tuple[type["LocalStorage"], tuple[Path]]:
        # Processes elsewhere have working folders of their own.
        return LocalStorage, (self.root,)

    def read(self, name: str) -> bytes | None:
        """The bytes of a file; None where there is none. See `Storage`."""
        path = self.root / name
        with suppress(FileNotFoundError, NotADirectoryError), ExitStack() as opened:
            # Nothing is waited for: what is no plain file, such as a pipe, is none of ours.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            opened.callback(os.close, descriptor)
            if S_ISREG(os.fstat(descriptor).st_mode):
                with open(descriptor, "rb", closefd=False) as file:
                    return file.read()
        return None

    def read_parts(self, name: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Parts of a file; see `Storage`."""
        descriptor = os.open(self.root / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            parts = [os.pread(descriptor, end - begin, begin) for begin, end in spans]
        finally:
            os.close(descriptor)
        if [len(part) for part in parts] != [end - begin for begin, end in spans]:
            raise OSError(f"{self.root / name} is shorter than expected")
        return parts

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none."""
        with suppress(FileNotFoundError, NotADirectoryError):
            status = os.stat(self.root / name)
            return status.st_size if S_ISREG(status.st_mode) else None
        return None

    def names(self, folder: str) -> list[str]:
        """Every file under a folder, sorted; those in hidden folders are none of the store's."""
        found = [
            Path(place, file).relative_to(self.root)
            for place, _, files in os.walk(self.root / folder, onerror=_unless_absent)
            for file in files
        ]
        return sorted(path.as_posix() for path in found if path.parts[0] not in _HIDDEN)

    def folders(self) -> list[str]:
        """The folders in the root, sorted, without hidden ones."""
        with os.scandir(self.root) as entries:
            return sorted(
                entry.name for entry in entries if entry.is_dir() and entry.name not in _HIDDEN
            )

    def claim(self, name: str) -> "LocalClaim | Holder":
        """A claim on a name, or who holds it."""
        lock = self._lock_path(name)
        descriptor = self._take(lock, wait=False)
        if descriptor is not None:
            return self._begin(lock, descriptor)
        return Holder.parse(self.read(f"{WRITING}/{lock.name}") or b"")

    @contextmanager
    def waited_claim(self, name: str) -> Iterator["LocalClaim"]:
        """A claim as soon as nobody else holds it."""
        lock = self._lock_path(name)
        descriptor = self._take(lock, wait=True)
        assert descriptor is not None
        with held(self._begin(lock, descriptor)) as claim:
            yield claim

    def claims(self, prefix: str) -> list[str]:
        """Claims whose name begins so; see `Storage`."""
        with suppress(FileNotFoundError):
            entries = os.listdir(self.root / WRITING)
            names = (entry.removesuffix(LOCK) for entry in entries if entry.endswith(LOCK))
            return sorted(name for name in names if name.startswith(prefix))
        return []

    def sweep(self, prefix: str) -> None:
        """Remove what dead processes left of claims whose name begins so."""
        with suppress(FileNotFoundError):
            # Of a claim that could not put away its files there may be these and no lock.
            left = {_claim_of(entry) for entry in os.listdir(self.root / WRITING)}
            for name in sorted(left):
                if name.startswith(prefix):
                    claim = self.claim(name)
                    if isinstance(claim, LocalClaim):
                        claim.release()

    def zarr_store(self) -> LocalStore:
        """The same place as Zarr reads it."""
        return LocalStore(self.root, read_only=True)

    def _lock_path(self, name: str) -> Path:
        return self.root / WRITING / (name + LOCK)

    def _take(self, lock: Path, *, wait: bool) -> int | None:
        descriptor = _take(lock, wait=wait, root_too=not self._was_there)
        self._was_there = True
        return descriptor

    def _begin(self, lock: Path, descriptor: int) -> "LocalClaim":
        """Say who holds the claim, and clear away what a holder that died left of it."""
        claim = LocalClaim(self.root, lock, descriptor)
        with on_error(claim.release):
            for left in _unplaced(lock):
                _remove(left)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, Holder.here().line(), 0)
        return claim


class LocalClaim:
    """A locked file in `.writing`, beside which lie the files that are not in place yet."""

    def __init__(self, root: Path, lock: Path, descriptor: int) -> None:
        self._root = root
        self._lock = lock
        self._descriptor = descriptor

    def write(self, files: Mapping[str, bytes]) -> None:
        """Give files these bytes; see `Claim`."""
        self._check()
        unplaced = {self._lock.with_suffix(f".{number}"): name for number, name in enumerate(files)}
        try:
            for path, name in unplaced.items():
                _write(path, files[name])
            _force(unplaced)
            folders = self._folders(files)
            for path, name in unplaced.items():
                path.rename(self._root / name)
            _force(folders)
        except BaseException:
            for path in unplaced:
                with suppress(OSError):
                    path.unlink()
            raise

    def delete(self, names: Iterable[str]) -> None:
        """Remove files, those that exist; see `Claim`."""
        self._check()
        folders: dict[Path, None] = {}
        for name in names:
            with suppress(FileNotFoundError, NotADirectoryError):
                path = self._root / name
                path.unlink()
                folders[path.parent] = None
        _force(folders)

    def rename(self, folder: str, to: str, order: Sequence[Sequence[str]]) -> None:
        """Give a folder in the root another name, at once; see `Claim`."""
        self._check()
        (self._root / folder).rename(self._root / to)
        _force([self._root])

    def remove(self, folder: str, order: Sequence[Sequence[str]]) -> None:
        """Remove a folder in the root, at once; see `Claim`."""
        self._check()
        # Out of the store in one step. A process that dies after it leaves something unplaced,
        # which goes with the next claim of the name.
        unplaced = self._lock.with_suffix(".0")
        (self._root / folder).rename(unplaced)
        _force([self._root, unplaced.parent])
        _remove(unplaced)

    def _check(self) -> None:
        """Refuse to change anything once the store is not where the claim was taken."""
        if not _is_at(self._descriptor, self._lock):
            name = f"{WRITING}/{self._lock.name}"
            raise FileNotFoundError(
                ENOENT, f"the claim {name} is gone, as where a store was moved", str(self._lock)
            )

    def _folders(self, files: Iterable[str]) -> list[Path]:
        """The folders whose entries change by files, made where this claim may."""
        if PART in self._lock.stem:
            return list(dict.fromkeys((self._root / name).parent for name in files))
        return _make_folders(self._root, files)

    def release(self) -> None:
        """Let go of the name; see `Claim`."""
        # The last first. Once the lock file is away, who opens one there has another; one that
        # cannot be removed is a dead one's as soon as it is closed.
        with ExitStack() as steps:
            steps.callback(_remove_if_empty, self._lock.parent)
            steps.callback(os.close, self._descriptor)
            steps.callback(self._unlock)

    def _unlock(self) -> None:
        # In the place of a store that was moved there may be another, whose lock this is not.
        if _is_at(self._descriptor, self._lock):
            self._lock.unlink(missing_ok=True)


def _take(lock: Path, *, wait: bool, root_too: bool) -> int | None:
    """The descriptor of a lock file that is now ours; None where another process has it.

    Its folder is made where there is none, and the one that is in only with `root_too`.
    """
    while True:
        try:
            # Not `exist_ok`, which fails where the folder is gone again when it looks.
            with suppress(FileExistsError):
                lock.parent.mkdir()
        except FileNotFoundError:
            if not root_too:
                raise
            lock.parent.parent.mkdir(exist_ok=True)
            _force([lock.parent.parent.parent])
            continue
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # who let go of another claim has removed the folder
            continue
        with ExitStack() as unless_ours:
            unless_ours.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                return None
            if _is_at(descriptor, lock):
                unless_ours.pop_all()
                return descriptor


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether a path still leads to an open file, which its last holder may have removed."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


def _unplaced(lock: Path) -> list[Path]:
    """What lies beside a lock file and belongs to it."""
    return [
        path
        for path in lock.parent.iterdir()
        if path != lock and _claim_of(path.name) == lock.name.removesuffix(LOCK)
    ]


def _claim_of(entry: str) -> str:
    """The name of the claim that a file in `.writing` belongs to; empty where it is of none."""
    name, _, ending = entry.rpartition(".")
    return name if f".{ending}" == LOCK or ending.isdigit() else ""


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # others write
        folder.rmdir()


def _unless_absent(error: OSError) -> None:
    """A folder that cannot be listed is not one without files."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _make_folders(root: Path, names: Iterable[str]) -> list[Path]:
    """Make the folders of some files; all folders whose entries change by that or by the files.

    Never the root: where that is gone, so is the store.
    """
    changed: dict[Path, None] = {}
    for folder in dict.fromkeys((root / name).parent for name in names):
        missing = []
        parent = folder
        while parent != root and not parent.is_dir():
            missing.append(parent)
            parent = parent.parent
        for each in reversed(missing):
            each.mkdir(exist_ok=True)
            changed[each.parent] = None
        changed[folder] = None
    return list(changed)


def _write(path: Path, data: bytes) -> None:
    # In pieces: given all at once, Linux looks for pages as large, which took ten times as long as
    # the writing itself (44 against 3 ms for 13 MB, Linux 6.18).
    view = memoryview(data)
    with path.open("wb") as file:
        for start in range(0, len(data), _PIECE):
            file.write(view[start : start + _PIECE])


def _force(paths: Iterable[Path]) -> None:
    """Wait until files' bytes, and folders' entries, are on the disk."""
    waiting = list(paths)
    if len(waiting) == 1:
        _force_one(waiting[0])
    elif waiting:
        # At once, so that a journaling filesystem commits once and not for each of them.
        with ThreadPoolExecutor(min(len(waiting), _FORCED_AT_ONCE)) as pool:
            list(pool.map(_force_one, waiting))


def _force_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
