"""The names a user imports are there, and importing them costs nothing until they are used."""

import subprocess
import sys

import attnsearch


def test_every_public_name_is_there_and_documented():
    for name in attnsearch.__all__:
        assert getattr(attnsearch, name).__doc__


def test_public_verbs_stay_callable_after_the_packages_behind_them_are_loaded():
    import attnsearch.capturing
    import attnsearch.metrics
    import attnsearch.scanning

    assert callable(attnsearch.scan)
    assert callable(attnsearch.capture)
    assert callable(attnsearch.rank)


def test_importing_attnsearch_loads_nothing_heavy():
    probe = "import sys, attnsearch; print('torch' in sys.modules, 'zarr' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "False"]
