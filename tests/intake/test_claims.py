"""What a torch file may claim, and what it is refused for."""

import io
import os
import tracemalloc
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnsearch.intake import claims
from attnsearch.intake.archive import ArchiveError
from attnsearch.intake.claims import ForeignError, inspect_torch_file

WEIGHT = torch.randn(20, 30)


def inspect(data: bytes) -> None:
    inspect_torch_file(io.BytesIO(data))


def refusal(data: bytes, kind: type[ArchiveError] = ArchiveError) -> str:
    with pytest.raises(kind) as caught:
        inspect(data)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400
    return message


def saved(content, **how) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **how)
    return file.getvalue()


ADMITTED = {
    "state dict": torch.nn.Linear(3, 4).half().state_dict(),
    "parameters": {"a": torch.nn.Parameter(torch.ones(3)), "b": torch.ones(2).requires_grad_()},
    "shared": [WEIGHT, WEIGHT.T, WEIGHT[3:], WEIGHT[:, ::2], WEIGHT],
    "empty": [torch.zeros(0), torch.zeros(3, 0, 5), torch.tensor(1.5)],
    "optimiser": torch.optim.AdamW(torch.nn.Linear(2, 2).parameters()).state_dict(),
    "generator": torch.Generator().get_state(),
    "values": {
        "a": [1, -1, 2**63, 1.5, None, True, "é", b"\xff\0"],
        3: (1, (2, (3, ())), {}, (False,)),
    },
    "kinds": [torch.float16, torch.Size([2, 3]), torch.device("cuda:0")],
    "nothing": None,
}


@pytest.mark.parametrize("name", ADMITTED)
def test_what_torch_saves_of_plain_values_and_tensors_is_admitted(name):
    inspect(saved(ADMITTED[name]))


NUMBERS = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.int64,
    torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.uint16, torch.uint32,
    torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex128,
]  # fmt: skip


@pytest.mark.parametrize("kind", NUMBERS, ids=str)
def test_numbers_of_every_type_are_admitted(kind):
    inspect(saved({"a": torch.zeros(3, 4).to(kind), "b": torch.zeros(5).to(kind)[1:]}))


@given(st.data())
def test_any_view_of_a_tensor_is_admitted(data):
    tensor = WEIGHT
    for _ in range(data.draw(st.integers(0, 4))):
        axis = data.draw(st.integers(0, tensor.dim() - 1))
        start, step = data.draw(st.integers(0, 8)), data.draw(st.integers(1, 3))
        view = tensor.movedim(axis, 0)[start::step]
        tensor = view if data.draw(st.booleans()) else view[None].transpose(0, -1)
    inspect(saved([tensor, tensor.mT if tensor.dim() > 1 else tensor]))


ODD = {
    "sparse": torch.eye(3).to_sparse(),
    "meta": torch.empty(10**12, device="meta"),
    "conjugate": torch.ones(2, dtype=torch.complex64).conj(),
    "expanded": torch.zeros(()).expand(10**6),
    "sparse parameter": torch.nn.Parameter(torch.eye(3).to_sparse()),
}


@pytest.mark.parametrize("name", ODD)
def test_tensors_of_other_kinds_are_refused(name):
    message = refusal(saved({"deep": [{"weight": ODD[name]}]}))
    assert ("larger than its storage" if name == "expanded" else "weight is not a plain") in message


def test_parameters_with_attributes_of_their_own_are_refused():
    """An attribute called `float` would take the place of the method."""
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.float = 3
    assert "weight is not a plain tensor" in refusal(saved({"weight": parameter}))


def test_the_handmade_file_is_one(make):
    data = make.file({"x": make.tensor()})
    inspect(data)
    loaded = torch.load(io.BytesIO(data), weights_only=True)
    assert torch.equal(loaded["x"], torch.zeros(4))


def test_a_file_of_a_gpu_machine_is_admitted(make):
    inspect(make.file({"x": make.tensor(storage=make.storage(location="cuda:1"))}))


@pytest.mark.parametrize(
    "lie",
    [
        {"sizes": (5,)},
        {"sizes": (10**12,)},
        {"sizes": (10**12,), "strides": (0,)},
        {"sizes": (2, 3), "strides": (1, 0)},
        {"sizes": (4,), "offset": 1},
        {"sizes": (2,), "strides": (10**12,)},
        {"sizes": (2**62, 2**62, 2**62), "strides": (0, 0, 0)},
        {"sizes": (-1,)},
        {"sizes": (4,), "strides": (-1,)},
        {"sizes": (4.0,)},
        {"sizes": (True,)},
        {"sizes": ("4",)},
        {"sizes": (4,), "strides": ()},
        {"sizes": (4,), "offset": None},
        {"sizes": 4},
        {"sizes": (1,) * 17, "strides": (1,) * 17},
        {"grad": 1},
    ],
    ids=str,
)
def test_a_tensor_that_is_not_within_its_storage_is_refused(make, lie):
    refusal(make.file({"x": make.tensor(**lie)}))


@pytest.mark.parametrize(
    "lie",
    [
        {"numbers": 5},
        {"numbers": 10**12},
        {"numbers": -4},
        {"numbers": 4.5},
        {"kind": torch.DoubleStorage},
        {"key": "1"},
        {"key": "../version"},
        {"key": 10**9},
    ],
    ids=str,
)
def test_a_storage_that_is_not_its_entry_is_refused(make, lie):
    assert len(refusal(make.file({"x": make.tensor(storage=make.storage(**lie))}))) < 200


def test_a_storage_of_two_kinds_is_refused(make):
    """torch would take the second for the first, whose numbers are four times as large."""
    other = make.storage(kind=torch.ByteStorage, numbers=16)
    refusal(make.file([make.tensor(), make.tensor(sizes=(16,), storage=other)]))


def test_many_names_for_one_storage_are_refused(make):
    data = bytes(4000)
    storage = make.storage(numbers=1000)
    few, many = (
        [make.tensor(sizes=(1000,), storage=storage) for _ in range(count)] for count in (4, 40)
    )
    inspect(make.file(few, storages={"0": data}))
    assert "more than 4 times" in refusal(make.file(many, storages={"0": data}))


def test_many_tensors_of_nothing_are_refused(make, monkeypatch):
    monkeypatch.setattr(claims, "MAX_TENSORS", 10)
    none = [make.tensor(sizes=(0,)) for _ in range(11)]
    inspect(make.file(none[:10]))
    assert "more than 10 tensors" in refusal(make.file(none))


CALLS = {
    "system": (os.system, "true"),
    "eval": (eval, "1"),
    "bytearray": (bytearray, 10**12),
    "range": (range, 10**12),
    "set": (set, []),
    "complex": (complex, 1, 2),
    "getattr": (getattr, "a", "b"),
    "dict": (dict, {}),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_would_be_called_is_refused_by_name(make, name):
    message = refusal(make.file({"x": make.call(*CALLS[name])}), ForeignError)
    assert message.endswith(name)


COPIES = {
    "table": (OrderedDict, [["a", 1]] * 9),
    "tensor": (torch.Tensor, 10**12),
    "storage": (torch.FloatStorage, 10**12),
}


@pytest.mark.parametrize("name", COPIES)
def test_what_makes_copies_or_memory_of_its_own_is_refused(make, name):
    refusal(make.file({"x": make.call(*COPIES[name])}), ForeignError)


@pytest.mark.parametrize(
    ("called", "argument"),
    [
        (b"c_codecs\nencode\nq\x00", b"X\xa0\x0f\x00\x00" + b"a" * 4000 + b"X\6\0\0\0latin1\x86"),
        (b"ctorch\nSize\nq\x00", b"(" + b"K\1" * 2000 + b"t\x85"),
    ],
    ids=["bytes", "size"],
)
def test_copies_of_one_value_count_as_tensors_do(make, called, argument):
    """What is called and what with are there once; the call is there again and again."""
    once = b"\x80\x02](" + called + argument + b"q\x01R"
    inspect(make.file(pickled=once + b"e."))
    assert "more than 4 times" in refusal(make.file(pickled=once + b"h\0h\1R" * 99 + b"e."))


NESTED: object = 1
for _ in range(50):
    NESTED = [NESTED, NESTED]

LONG: object = [0] * 1000
WIDE = [LONG] * 1000

CYCLE: list[object] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize("content", [NESTED, WIDE, CYCLE], ids=["nested", "wide", "cycle"])
def test_a_small_pickle_of_values_without_end_is_refused(content):
    data = saved(content)
    assert len(data) < 20_000
    assert "nested too deeply, or too many" in refusal(data)


def test_values_are_nested_so_deep_and_no_deeper():
    value: object = 1
    for _ in range(claims.MAX_DEPTH):
        value = [value]
    inspect(saved(value))
    assert "nested too deeply" in refusal(saved([value]))


def test_keys_that_take_for_ever_to_hash_are_refused(make):
    """A tuple of two of the one before, sixty times, and then the key of a table."""
    tuples = b")" + b"2\x86".replace(b"2", b"q\x00h\x00") * 60
    body = b"\x80\x02}" + tuples + b"Ns."
    assert "neither text nor integers" in refusal(make.file(pickled=body))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"\x80\x02r\xff\xff\xff\xff.", ArchiveError),  # memory for four thousand million memos
        (b"\x80\x02Nr\xff\xff\xff\xff.", None),  # which a table of them need not have
        (
            b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
            ArchiveError,
        ),  # a bytearray of that size
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.", ForeignError),  # a frame
        (
            b"\x80\x02\x8b\xff\xff\xff\x7f.",
            ArchiveError,
        ),  # an integer of 2 GiB
        (b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b".", ArchiveError),  # one of 2040 bits
        (b"\x80\x02" + b"(" * 5000 + b".", ArchiveError),
        (b"\x80\x02]" * 5000 + b".", None),
        (b"(ios\nsystem\n.", ForeignError),
        (b"cos\nsystem\n.", ForeignError),
        (b"c\\s\\\\\ns\\ystem\n.", ForeignError),
        (b"cos\x1b[2J\n" + b"a" * 10**5 + b"\n.", ForeignError),
        (b"\x80\x02N", ArchiveError),
        (b"", ArchiveError),
        (b"N.junk", None),
        (b"}(X\x01\x00\x00\x00aNu.", None),
        (b"}(X\x01\x00\x00\x00au.", ArchiveError),  # a key without a value
        (b"](NNa.", ArchiveError),
        (b"Nh\x05.", ArchiveError),
        (b"NR.", ArchiveError),
        (b"NNR.", ArchiveError),
        (b"NQ.", ArchiveError),
        (b"Nb.", ArchiveError),
        (b"}}b.", ArchiveError),
        (b"ccollections\nOrderedDict\n.", ForeignError),
        (b"ccollections\nOrderedDict\n)R}X\x04\x00\x00\x00itemsNsb.", ArchiveError),
        (b"ccollections\nOrderedDict\n)R}X\x09\x00\x00\x00_metadataNsb.", None),
        (b"ctorch\nfloat16\n)R.", ForeignError),
        (b"ctorch\nfloat16\n}b.", ArchiveError),
        (b"ctorch.storage\nUntypedStorage\n)\x81.", ForeignError),
    ],
    ids=lambda value: None,
)
def test_any_pickle_is_read_or_refused(make, body, kind):
    data = make.file(pickled=body)
    if kind is None:
        inspect(data)
    else:
        refusal(data, kind)


def test_attributes_of_a_table_are_refused():
    """One called `get` would take the place of the method."""
    table = OrderedDict(a=1)
    table.get = 3
    assert "attributes" in refusal(saved(table))


@given(st.data())
def test_any_damage_to_a_pickle_is_refused_or_harmless(make, data):
    """What passes can be loaded by torch, or not, and takes no more than a few times its size."""
    whole = make.pickled(
        {"a": make.tensor(), "b": [make.tensor(sizes=(2, 2), strides=(2, 1)), "x"]}
    )
    body = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    file = make.file(pickled=bytes(body))
    try:
        inspect(file)
    except ArchiveError:
        return
    try:
        loaded = torch.load(io.BytesIO(file), weights_only=True)
    except Exception:  # torch refuses more than we do
        return
    tensors = [value for value in leaves(loaded) if isinstance(value, torch.Tensor)]
    assert sum(t.untyped_storage().nbytes() for t in tensors) <= 4 * len(file)


def leaves(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from leaves(each)
    else:
        yield value


@pytest.mark.parametrize("limit", ["MAX_PICKLE", "MAX_OPERATIONS"])
def test_the_table_of_contents_is_bounded(limit, monkeypatch):
    inspect(saved(ADMITTED["values"]))
    monkeypatch.setattr(claims, limit, 20)
    refusal(saved(ADMITTED["values"]))


def test_the_largest_table_of_contents_takes_little_memory(make):
    """Nothing but empty tables, a byte each."""
    data = make.file(pickled=b"\x80\x02" + b"}" * (claims.MAX_PICKLE - 3) + b".")
    tracemalloc.start()
    try:
        refusal(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**28


def test_an_archive_of_another_kind_is_refused(make):
    assert "archive of another kind" in refusal(make.archive([("m/other", b"1")]))
    assert "of another kind" in refusal(b"data.pkl")
