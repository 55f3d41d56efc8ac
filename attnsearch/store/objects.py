"""A store in an object store: S3, Google Cloud Storage, Azure, or whatever else obstore reaches.

An object is whole or absent by nature, and lasts when its upload is answered. A claim is an object
that is created only where there is none. Nothing ends it with its process: one whose process has
died on this machine is taken over, and so is one that this process itself could not remove; one of
another machine has to be removed by hand. Credentials come from the environment, as obstore finds
them.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from errno import EIO
from functools import partial
from pathlib import Path
from threading import Lock
from time import sleep
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from attnsearch.cleanup import on_error
from attnsearch.errors import StoreError
from attnsearch.store.storage import LOCK, WRITING, Holder, held

if TYPE_CHECKING:
    from obstore.store import RetryConfig

_AT_ONCE: Final = 16
_LOOK_AGAIN_SECONDS: Final = 0.5
_RETRIES: Final["RetryConfig"] = {"max_retries": 7, "retry_timeout": timedelta(minutes=1)}
"""A server that stumbles has a quarter of a minute to get up; a wrong address is told soon."""

_left: Final[set[str]] = set()
"""Marks of claims that this process may have written, does not have, and could not remove."""
_taking_over: Final = Lock()


class ObjectStorage:
    """The objects under a prefix."""

    derived: Path | None = None

    def __init__(self, store: Any, url: str) -> None:
        """`store` is one of obstore's, `url` is what a user calls it."""
        self._store = store
        self._url = url
        self.place = url

    def __str__(self) -> str:
        return self._url

    def __reduce__(self) -> tuple[Callable[[str], "ObjectStorage"], tuple[str]]:
        # Processes elsewhere have credentials of their own.
        return object_storage, (self._url,)

    def read(self, name: str) -> bytes | None:
        """The bytes of an object; None where there is none."""
        import obstore

        with suppress(FileNotFoundError), _os_errors():
            return bytes(obstore.get(self._store, name).bytes())
        return None

    def read_parts(self, name: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Parts of a file; see `Storage`."""
        import obstore

        with _os_errors():
            found = obstore.get_ranges(
                self._store,
                name,
                starts=[begin for begin, _ in spans],
                ends=[end for _, end in spans],
            )
        return [bytes(part) for part in found]

    def size(self, name: str) -> int | None:
        """Bytes of an object; None where there is none."""
        import obstore

        with suppress(FileNotFoundError), _os_errors():
            return int(obstore.head(self._store, name)["size"])
        return None

    def names(self, folder: str) -> list[str]:
        """Every object under a prefix, sorted; those in `.writing` are none of the store's."""
        import obstore

        with _os_errors():
            found = obstore.list(self._store, prefix=folder or None).collect()
        names = sorted(str(each["path"]) for each in found)
        return [name for name in names if not name.startswith(f"{WRITING}/")]

    def folders(self) -> list[str]:
        """What stands before the first `/` of names, sorted, without `.writing`."""
        import obstore

        with _os_errors():
            found = obstore.list_with_delimiter(self._store)["common_prefixes"]
        return sorted(str(each) for each in found if each != WRITING)

    def claim(self, name: str) -> "ObjectClaim | Holder":
        """A claim on a name, or who holds it."""
        lock = f"{WRITING}/{name}{LOCK}"
        mark = uuid4().hex
        with on_error(partial(_left.add, mark)):
            holder = self._take(lock, mark)
        return holder or ObjectClaim(self._store, lock, mark)

    def _take(self, lock: str, mark: str) -> Holder | None:
        """Write a lock with our mark, unless it is held; then who holds it."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotSupportedError, PreconditionError

        said = Holder.here(mark).line()
        while True:
            with suppress(AlreadyExistsError), _os_errors():
                obstore.put(self._store, lock, said, mode="create")
                return None
            # There is none if it was let go of a moment ago. Of this process one thread at a time
            # looks: another would remove what the first has taken over.
            with _taking_over, suppress(FileNotFoundError), _os_errors():
                there = obstore.get(self._store, lock)
                tags = ((key, there.meta[key]) for key in ("e_tag", "version"))
                version: Any = {key: tag for key, tag in tags if tag is not None}
                holder = Holder.parse(bytes(there.bytes()))
                if holder.mark == mark:  # a `put` whose answer was lost and that was tried again
                    return None
                if holder.mark in _left and holder.pid == os.getpid():
                    _delete(self._store, lock)
                    continue
                if not holder.is_dead_here():
                    return holder
                try:
                    obstore.put(self._store, lock, said, mode=version)
                except PreconditionError:
                    continue  # somebody else took it over
                except (NotSupportedError, NotImplementedError):
                    return holder
                return None

    @contextmanager
    def waited_claim(self, name: str) -> Iterator["ObjectClaim"]:
        """A claim as soon as nobody else holds it."""
        while isinstance(claim := self.claim(name), Holder):
            sleep(_LOOK_AGAIN_SECONDS)
        with held(claim):
            yield claim

    def claims(self, prefix: str) -> list[str]:
        """Claims whose name begins so; see `Storage`."""
        import obstore

        with _os_errors():
            found = obstore.list(self._store, prefix=WRITING).collect()
        names = [str(each["path"]).removeprefix(f"{WRITING}/").removesuffix(LOCK) for each in found]
        return sorted(name for name in names if name.startswith(prefix))

    def sweep(self, prefix: str) -> None:
        """Remove claims of dead processes of this machine whose name begins so."""
        for name in self.claims(prefix):
            claim = self.claim(name)
            if isinstance(claim, ObjectClaim):
                claim.release()

    def zarr_store(self) -> Any:
        """The same place as Zarr reads it."""
        from zarr.storage import ObjectStore

        return ObjectStore(self._store, read_only=True)


class ObjectClaim:
    """An object in `.writing` that says whose the claim is."""

    def __init__(self, store: Any, lock: str, mark: str) -> None:
        self._store = store
        self._lock = lock
        self._mark = mark

    def write(self, files: Mapping[str, bytes]) -> None:
        """Give objects these bytes; see `Claim`."""
        import obstore

        _at_once([partial(obstore.put, self._store, name, data) for name, data in files.items()])

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects, those that exist."""
        _at_once([partial(_delete, self._store, name) for name in names])

    def rename(self, folder: str, to: str, order: Sequence[Sequence[str]]) -> None:
        """Copy the objects under a prefix to another and remove them; see `Claim`."""
        import obstore

        for group in order:
            copies = ((name, to + name.removeprefix(folder)) for name in group)
            _at_once([partial(obstore.copy, self._store, name, copy) for name, copy in copies])
        self.remove(folder, order)

    def remove(self, folder: str, order: Sequence[Sequence[str]]) -> None:
        """Remove the objects under a prefix; see `Claim`."""
        for group in reversed(order):
            self.delete(group)

    def release(self) -> None:
        """Let go of the name; see `Claim`."""
        with on_error(partial(_left.add, self._mark)), _os_errors():
            _delete(self._store, self._lock)


def object_storage(url: str) -> ObjectStorage:
    """The objects under a URL such as `s3://bucket/prefix`.

    Raises:
        StoreError: obstore is not installed, or does not know such a URL.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        raise StoreError(f'{url} needs obstore: pip install "attnsearch[objects]"') from error
    try:
        return ObjectStorage(from_url(url, retry_config=_RETRIES), url)
    except (BaseError, ValueError) as error:
        raise StoreError(f"{url} is no place for a store: {_first_line(error)}") from error


def _delete(store: Any, name: str) -> None:
    import obstore

    with suppress(FileNotFoundError):
        obstore.delete(store, name)


def _at_once(calls: list[Callable[[], object]]) -> None:
    """Make calls in threads; the first error is raised when all are over."""
    if calls:
        with _os_errors(), ThreadPoolExecutor(min(len(calls), _AT_ONCE)) as pool:
            for done in [pool.submit(call) for call in calls]:
                done.result()


@contextmanager
def _os_errors() -> Iterator[None]:
    """Errors of obstore that tell of no other process as those of a disk."""
    from obstore.exceptions import (
        AlreadyExistsError,
        BaseError,
        NotSupportedError,
        PreconditionError,
    )

    try:
        yield
    except (AlreadyExistsError, PreconditionError, NotSupportedError):
        raise
    except BaseError as error:
        raise OSError(EIO, _first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]
