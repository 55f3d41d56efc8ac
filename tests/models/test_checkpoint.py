import os
import pickle
from collections import OrderedDict
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnsearch.errors import CheckpointError
from attnsearch.models import load_checkpoint, save_checkpoint


@pytest.fixture(scope="session")
def saved(tiny_checkpoint, tmp_path_factory):
    """The bytes of a good checkpoint file."""
    path = tmp_path_factory.mktemp("good") / "model.pt"
    save_checkpoint(tiny_checkpoint, path)
    return path.read_bytes()


@pytest.fixture(scope="session")
def content(tiny_checkpoint, tmp_path_factory):
    """What is inside a good checkpoint file."""
    path = tmp_path_factory.mktemp("good") / "model.pt"
    save_checkpoint(tiny_checkpoint, path)
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A path the examples of one property write over."""
    return tmp_path_factory.mktemp("scratch") / "model.pt"


def refusal(path):
    """The one line with which a file is refused."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path).build()
    message = str(caught.value)
    assert "\n" not in message
    return message


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_what_was_saved_is_loaded_bit_for_bit(tiny_checkpoint, tmp_path):
    noisy = {name: tensor + torch.randn(()) for name, tensor in tiny_checkpoint.weights.items()}
    metrics = [{"step": 3, "shape": 0.25}, {"step": 7, "shape": 0.1 + 0.2}]
    state = {"generator": torch.Generator().get_state(), "optimisers": [{"lr": 0.1}]}
    original = replace(
        tiny_checkpoint, weights=noisy, metrics=metrics, step=7, training_state=state
    )
    save_checkpoint(original, tmp_path / "new" / "model.pt")
    loaded = load_checkpoint(tmp_path / "new" / "model.pt")
    for name in ("model", "encoder", "task", "objective", "step", "metrics"):
        assert getattr(loaded, name) == getattr(original, name)
    assert same(loaded.weights, original.weights)
    assert same(loaded.average, original.average)
    assert not same(loaded.weights, loaded.average)
    assert torch.equal(loaded.training_state["generator"], state["generator"])
    assert loaded.training_state["optimisers"] == state["optimisers"]


def test_a_new_file_takes_the_place_of_the_old_in_one_move(tiny_checkpoint, saved, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(saved)
    with path.open("rb") as old:
        save_checkpoint(replace(tiny_checkpoint, step=9), path)
        assert old.read() == saved
    assert load_checkpoint(path).step == 9
    assert os.listdir(tmp_path) == ["model.pt"]


def test_the_digest_is_that_of_the_file(saved, scratch):
    scratch.write_bytes(saved)
    assert load_checkpoint(scratch).digest == sha256(saved).hexdigest()


def test_what_is_built_is_the_average_ready_to_sample(tiny_checkpoint):
    zeros = {name: torch.zeros_like(tensor) for name, tensor in tiny_checkpoint.weights.items()}
    model = replace(tiny_checkpoint, weights=zeros).build()
    assert same(model.state_dict(), tiny_checkpoint.average)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_half_precision_weights_are_built_in_single_precision(tiny_checkpoint):
    halved = {name: tensor.half() for name, tensor in tiny_checkpoint.average.items()}
    built = replace(tiny_checkpoint, average=halved).build().state_dict()
    assert same(built, {name: tensor.float() for name, tensor in halved.items()})


def test_the_slim_form_has_the_average_alone_in_half_precision(tiny_checkpoint, saved, tmp_path):
    path = tmp_path / "slim.pt"
    save_checkpoint(replace(tiny_checkpoint, training_state={"a": 1}).slim(), path)
    slim = load_checkpoint(path)
    assert slim.weights == {}
    assert slim.training_state is None
    assert same(slim.average, {k: t.half() for k, t in tiny_checkpoint.average.items()})
    assert slim.metrics == tiny_checkpoint.metrics
    assert path.stat().st_size < len(saved) / 2
    assert slim.build().state_dict().keys() == tiny_checkpoint.average.keys()


def test_weights_too_large_for_half_precision_are_named(tiny_checkpoint):
    average = {name: tensor.clone() for name, tensor in tiny_checkpoint.average.items()}
    average["final.weight"][0, 0] = 1e5
    with pytest.raises(CheckpointError, match=r"final\.weight"):
        replace(tiny_checkpoint, average=average).slim().build()


def test_a_write_that_breaks_off_leaves_the_old_file(tiny_checkpoint, saved, tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    path.write_bytes(saved)

    def break_off(_, file):
        file.write(b"half a checkpoint")
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(torch, "save", break_off)
    with pytest.raises(CheckpointError, match=r"cannot write .*model\.pt: Input/output error"):
        save_checkpoint(replace(tiny_checkpoint, step=9), path)
    assert path.read_bytes() == saved
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_leaves_the_old_file(tiny_checkpoint, saved, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(saved)
    (tmp_path / "model.pt.partial").symlink_to("/dev/full")
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_checkpoint(replace(tiny_checkpoint, step=9), path)
    assert path.read_bytes() == saved
    assert os.listdir(tmp_path) == ["model.pt"]


def test_a_folder_that_cannot_be_made_is_named(tiny_checkpoint, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot write .*file/model\.pt"):
        save_checkpoint(tiny_checkpoint, tmp_path / "file" / "model.pt")


def test_a_missing_file_is_named(tmp_path):
    assert refusal(tmp_path / "none.pt") == f"no such file: {tmp_path / 'none.pt'}"


def test_a_folder_is_not_a_checkpoint(tmp_path):
    assert refusal(tmp_path).startswith(f"{tmp_path} is a folder, not a checkpoint")


@pytest.mark.parametrize("first", ["", "a", "s", ".", "import torch\n", "PK\x03\x04", "hello"])
def test_a_text_file_renamed_is_refused(scratch, first):
    scratch.write_text(first + "This is a letter, not a checkpoint.\n" * 20)
    assert f"{scratch} is not a checkpoint" in refusal(scratch)


@given(st.binary(max_size=60))
def test_a_file_of_any_bytes_is_refused(scratch, junk):
    scratch.write_bytes(junk)
    assert f"{scratch} is not a checkpoint" in refusal(scratch)


@pytest.mark.parametrize("share", [0, 1e-5, 0.01, 0.3, 0.7, 0.99, 0.9999])
def test_a_truncated_checkpoint_is_refused(saved, scratch, share):
    scratch.write_bytes(saved[: int(share * len(saved))])
    assert f"{scratch} is not a checkpoint" in refusal(scratch)


@pytest.mark.parametrize(
    "other",
    [
        {"state_dict": {"blocks.0.attn.qkv.weight": torch.zeros(3)}, "epoch": 4000},
        OrderedDict(weight=torch.zeros(3)),
        torch.zeros(3),
        [torch.zeros(3)],
        None,
        {"format": "another"},
    ],
    ids=lambda other: type(other).__name__,
)
def test_another_architecture_is_said_to_be_one(scratch, other):
    torch.save(other, scratch)
    assert f"{scratch} is a checkpoint of another architecture" in refusal(scratch)


class Hostile:
    """Makes a file where it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("wrapping", ["pickle", "archive", "archive before 1.6", "field"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    tmp_path, content, wrapping, protocol
):
    target, path = tmp_path / "ran", tmp_path / "model.pt"
    hostile = Hostile(target)
    if wrapping == "pickle":
        path.write_bytes(pickle.dumps(hostile, protocol=protocol))
    else:
        torch.save(
            content | {"training_state": hostile} if wrapping == "field" else hostile,
            path,
            pickle_protocol=protocol,
            _use_new_zipfile_serialization=wrapping != "archive before 1.6",
        )
    assert f"{path} is not a checkpoint" in refusal(path)
    assert not target.exists()


def test_the_hostile_file_of_these_tests_is_hostile(tmp_path):
    pickle.loads(pickle.dumps(Hostile(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("version", [2, 99, None, "1"])
def test_a_newer_version_is_refused_by_its_number(scratch, content, version):
    torch.save(content | {"version": version}, scratch)
    assert f"version {version}" in refusal(scratch)


@pytest.mark.parametrize("version", [torch.ones(3), torch.tensor(1), True, 1.0, [1] * 1000])
def test_a_version_that_is_no_number_is_refused(scratch, content, version):
    torch.save(content | {"version": version}, scratch)
    message = refusal(scratch)
    assert f"{scratch} has checkpoint version" in message
    assert len(message) < 300


FIELDS = ("encoder", "task", "model", "objective", "step", "weights", "average", "metrics")


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_named(scratch, content, field):
    torch.save({name: value for name, value in content.items() if name != field}, scratch)
    message = refusal(scratch)
    assert f"{scratch} has a damaged header" in message
    assert field in message


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [None, [1, 2], "text", {"unknown": 1}], ids=str)
def test_a_field_of_another_kind_is_refused(scratch, content, field, value):
    torch.save(content | {field: value}, scratch)
    assert f"{scratch} has a damaged header" in refusal(scratch)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("model", {"width": 33}),
        ("model", {"heads": 0}),
        ("model", {"surprise": 1}),
        ("encoder", {"kind": "t6"}),
        ("task", {"layout": "spiral"}),
        ("task", {"radius": 100}),
    ],
    ids=str,
)
def test_a_header_out_of_range_is_refused(scratch, content, field, change):
    torch.save(content | {field: content[field] | change}, scratch)
    assert f"{scratch} has a damaged header" in refusal(scratch)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("model", {"depth": "2"}),
        ("model", {"depth": 2.0}),
        ("model", {"depth": True}),
        ("model", {"depth": None}),
        ("model", {"depth": 10**9}),
        ("model", {"mlp_ratio": float("nan")}),
        ("model", {"mlp_ratio": 0}),
        ("model", {"image_channels": 0}),
        ("model", {"image_side": 10**6, "patch": 1}),
        ("model", {"image_side": 512, "patch": 1}),
        ("model", {"image_side": 2048, "image_channels": 64}),
        ("model", {"text_length": 10**9}),
        ("model", {3: 4}),
        ("encoder", {"channels": "16"}),
        ("encoder", {"channels": 10**9}),
        ("encoder", {"text_length": 11}),
        ("encoder", {"seed": -(2**63) - 1}),
        ("encoder", {"source": 3}),
        ("encoder", {"kind": [1]}),
        ("encoder", {"dtype": torch.float32}),
        ("task", {"canvas": 10**9}),
        ("task", {"canvas": torch.tensor(32)}),
        ("task", {"min_distance": "0"}),
        ("task", {"colour_dropout": float("nan")}),
        ("task", {"held_out_seed": 1.5}),
        ("task", {"text_length": 0}),
    ],
    ids=str,
)
def test_a_header_of_other_types_or_of_absurd_sizes_is_refused(scratch, content, field, change):
    torch.save(content | {field: content[field] | change}, scratch)
    message = refusal(scratch)
    assert f"{scratch} has a damaged header" in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("step", "3"),
        ("step", -1),
        ("step", 3.0),
        ("step", 2**63),
        ("objective", torch.ones(3)),
        ("metrics", [{"step": "1"}]),
        ("metrics", [{"step": torch.ones(3)}]),
        ("metrics", [{3: 1.0}]),
        ("metrics", [[("step", 1)]]),
        ("training_state", [1]),
        ("weights", {3: torch.ones(3)}),
        ("origin", "rtep-atto-seed0"),
        ("origin", {"name": "rtep-atto-seed0"}),
        ("origin", {"name": "rtep-atto-seed0", "digest": "0" * 63}),
        ("origin", {"name": 3, "digest": "0" * 64}),
        ("origin", {"name": "a", "digest": "0" * 64, "more": 1}),
        ("origin", {3: 4}),
    ],
    ids=str,
)
def test_other_fields_of_other_types_are_refused(scratch, content, field, value):
    torch.save(content | {field: value}, scratch)
    assert f"{scratch} has a damaged header" in refusal(scratch)


def without(weights, name):
    return {key: tensor for key, tensor in weights.items() if key != name}


@pytest.mark.parametrize("field", ["average", "weights"])
@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        (lambda w: without(w, "final.bias"), "final.bias is missing"),
        (lambda w: w | {"x\x1b[2J": torch.ones(3)}, r"x\x1b[2J is one too many"),
        (lambda w: w | {"final.bias": torch.ones(3)}, "final.bias is [3], not [192]"),
        (lambda w: w | {"final.bias": torch.ones(192).long()}, "final.bias is missing, or no"),
    ],
)
def test_weights_that_are_not_the_models_are_refused_when_read(
    scratch, content, field, change, culprit
):
    torch.save(content | {field: change(content[field])}, scratch)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(scratch)
    assert culprit in str(caught.value)


def test_a_network_is_outlined_only_if_there_are_weights_for_its_depth(
    tiny_checkpoint, monkeypatch
):
    monkeypatch.setattr("attnsearch.models.checkpoint.DiT", None)
    deep = replace(tiny_checkpoint, model=replace(tiny_checkpoint.model, depth=1000))
    with pytest.raises(CheckpointError, match="are too few for 1000 blocks"):
        deep.build()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tiny_checkpoint, bad):
    average = {name: tensor.clone() for name, tensor in tiny_checkpoint.average.items()}
    average["blocks.1.cross_attention.key.weight"][3, 4] = bad
    with pytest.raises(CheckpointError, match=r"blocks\.1\.cross_attention\.key\.weight"):
        replace(tiny_checkpoint, average=average).build()


@pytest.mark.parametrize("width", [16, 64])
def test_weights_of_other_sizes_are_refused(tiny_checkpoint, width):
    model = replace(tiny_checkpoint.model, width=width)
    with pytest.raises(CheckpointError, match="do not fit") as caught:
        replace(tiny_checkpoint, model=model).build()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("depth", [1, 3])
def test_weights_of_another_depth_are_refused(tiny_checkpoint, depth):
    model = replace(tiny_checkpoint.model, depth=depth)
    with pytest.raises(CheckpointError, match="do not fit"):
        replace(tiny_checkpoint, model=model).build()
