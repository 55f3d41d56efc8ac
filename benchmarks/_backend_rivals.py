"""Ways to get the files of a block onto a disk so that they last: ours, and three libraries'.

Each takes a folder and gives a function that writes the named files of one block; None in the place
of a function says why it cannot.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from attnsearch.store.local import LocalStorage
from attnsearch.store.objects import ObjectStorage

Write = Callable[[Mapping[str, bytes]], None]


def ours(folder: Path) -> Write:
    """The storage of a store in a folder."""
    storage = LocalStorage(folder)

    def write(files: Mapping[str, bytes]) -> None:
        with storage.waited_claim("block") as claim:
            data = {name: data for name, data in files.items() if "ledger/" not in name}
            claim.write(data)
            claim.write({name: files[name] for name in files.keys() - data.keys()})

    return write


def obstore_folder(folder: Path) -> Write:
    """The storage of object stores, on obstore's own reading of a folder."""
    from obstore.store import LocalStore

    storage = ObjectStorage(LocalStore(folder, mkdir=True), str(folder))

    def write(files: Mapping[str, bytes]) -> None:
        with storage.waited_claim("block") as claim:
            claim.write(files)

    return write


def tensorstore_files(folder: Path) -> Write:
    """TensorStore's key-value store on a folder: it forces every file to the disk."""
    import tensorstore

    store: Any = tensorstore.KvStore.open(f"file://{folder.resolve()}/").result()

    def write(files: Mapping[str, bytes]) -> None:
        written = [store.write(name, data) for name, data in files.items() if "ledger/" not in name]
        for each in written:
            each.result()
        for name, data in files.items():
            if "ledger/" in name:
                store.write(name, data).result()

    return write


def icechunk_session(folder: Path) -> Write:
    """An Icechunk repository in a folder, one commit a block."""
    import icechunk
    from zarr.core.buffer import cpu

    repository: Any = icechunk.Repository.create(icechunk.local_filesystem_storage(str(folder)))

    def write(files: Mapping[str, bytes]) -> None:
        session = repository.writable_session("main")

        async def fill() -> None:
            for name, data in files.items():
                await session.store.set(name, cpu.Buffer.from_bytes(data))

        asyncio.run(fill())
        session.commit("a block")

    return write


BACKENDS: Final[dict[str, Callable[[Path], Write]]] = {
    "attnsearch, folder": ours,
    "attnsearch, obstore on a folder": obstore_folder,
    "TensorStore, key-value store": tensorstore_files,
    "Icechunk, folder": icechunk_session,
}
