"""`attnsearch zoo`."""

from attnsearch.cli import options
from attnsearch.cli.console import print_json, print_table
from attnsearch.zoo import packaged


def zoo(as_json: options.Json = False) -> None:
    """List the demonstration models that come with attnsearch.

    Example: attnsearch scan "$(attnsearch zoo --json | python -c
    'import json, sys; print(json.load(sys.stdin)[0]["path"])')" --store maps.zarr
    """
    models = [{"name": path.stem, "path": str(path)} for path in packaged()]
    if as_json:
        print_json(models)
        return
    print_table(
        ["name", "path"],
        [[model["name"], model["path"]] for model in models],
        title="packaged models",
        words=["name", "path"],
    )
