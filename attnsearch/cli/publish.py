"""`attnsearch publish`."""

from typing import Annotated

import typer

from attnsearch.cli import options
from attnsearch.progress import note, progress


def publish(
    store: options.Store,
    to: Annotated[str, typer.Option("--to", help="A folder, or a URL such as s3://bucket/maps.")],
    scan: options.Scan = None,
) -> None:
    """Copy finished scans to where others read them: an object store, or another folder.

    Every file is checked on the way, and a scan is to be seen there only when it is whole. Stopped
    at any time, the same command goes on; what is there already is not copied again. URLs are those
    of obstore (s3://, gs://, az://, ...): pip install "attnsearch[objects]". Keys and endpoints are
    taken from the environment, for example AWS_ACCESS_KEY_ID and AWS_ENDPOINT.

    Example: attnsearch publish maps.zarr --to s3://our-bucket/maps.zarr
    """
    from attnsearch import store as stores

    blocks = stores.count_blocks(store, scan)
    with progress("publishing", blocks, "blocks") as advance:
        copied = stores.publish(store, to, scan, advance)
    note(f"published to {to}: {', '.join(copied) or 'nothing that was not there'}")
