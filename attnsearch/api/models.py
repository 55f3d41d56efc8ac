"""Models whose weights are read: which files they are, refused before torch is imported."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attnsearch.errors import MetricError
from attnsearch.lookup import EXAMPLE_MODEL, find_model, is_pipeline, scan_name
from attnsearch.metrics import FROM_WEIGHTS

if TYPE_CHECKING:
    from attnsearch.scanning import Reading


def check_models(named: Sequence[Path | str], reading: "Reading | None") -> Mapping[str, Path]:
    """The files and folders of models whose weights are to be read, by the name each has.

    Raises:
        CheckpointError: there is no such model.
        MetricError: none is named, two have one name, one is a folder without weights, or a
            pipeline is given another text encoder.
    """
    if not named:
        raise MetricError(
            f"{FROM_WEIGHTS} reads models, name some, such as the packaged {EXAMPLE_MODEL}"
        )
    found: dict[str, Path] = {}
    for path in map(find_model, named):
        name = scan_name(path)
        if name in found:
            raise MetricError(f"several models are called {name}; rename one of them")
        if is_pipeline(path) and reading is not None and reading.encoder is not None:
            raise MetricError(f"{path} is a pipeline and brings its own text encoder")
        if path.is_dir() and not is_pipeline(path):
            raise MetricError(
                f"{FROM_WEIGHTS} needs the weights of a model and {path} is a folder without; "
                "give the model that was scanned"
            )
        found[name] = path
    return found
