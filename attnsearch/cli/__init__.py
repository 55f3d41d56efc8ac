"""The command line: parse, plan, call one library function, print.

Results go to stdout, progress and warnings to stderr. Heavy libraries are imported inside the
commands, so that `--help` answers at once.
"""

from attnsearch.cli.ablate import ablate
from attnsearch.cli.aggregate import aggregate
from attnsearch.cli.application import app
from attnsearch.cli.ask import ask
from attnsearch.cli.circuit import circuit
from attnsearch.cli.cluster import cluster
from attnsearch.cli.evaluate import evaluate
from attnsearch.cli.info import info
from attnsearch.cli.maps import maps
from attnsearch.cli.publish import publish
from attnsearch.cli.rank import rank
from attnsearch.cli.scan import scan
from attnsearch.cli.similar import similar
from attnsearch.cli.steer import steer
from attnsearch.cli.store import store
from attnsearch.cli.train import train
from attnsearch.cli.verify import verify
from attnsearch.cli.zoo import zoo

for _command in (
    train,
    evaluate,
    scan,
    rank,
    ask,
    maps,
    cluster,
    similar,
    circuit,
    ablate,
    steer,
    aggregate,
    verify,
    publish,
    info,
):
    app.command()(_command)
app.add_typer(store, name="store")
app.add_typer(zoo, name="zoo")


def main() -> None:
    """Entry point of the `attnsearch` program."""
    app()


__all__ = ["app", "main"]
