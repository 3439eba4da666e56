"""Headers that lie, and the library's own reader as the judge of what may be believed."""

import io
import json
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from mlx_yoda.adapters.safetensors_header import DTYPE_BYTES, MAX_HEADER, read_header, shown
from mlx_yoda.errors import UserError
from tests.machine import within

ROOT = Path(__file__).resolve().parents[2]
F32 = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


def packed(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def read(content):
    return read_header(io.BytesIO(content), "a.safetensors")


def refused(content):
    with pytest.raises(UserError) as error:
        read(content)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_right_header_is_read_in_the_order_of_the_bytes():
    arrays = {"b": np.ones((2, 3), np.float32), "a": np.zeros(5, np.float16)}
    content = safetensors.numpy.save(arrays, metadata={"format": "pt"})
    entries = read(content)
    assert {name: (e.dtype, e.shape) for name, e in entries.items()} == {
        "b": ("F32", (2, 3)),
        "a": ("F16", (5,)),
    }
    for name, entry in entries.items():
        assert content[entry.start : entry.start + entry.size] == arrays[name].tobytes()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"x": F32 | {"shape": [2, 4]}}, "tensor x says that it has 24 bytes, but its .* need 32"),
        ({"x": F32 | {"shape": [2**62, 2**62]}}, "tensor x has a shape that is no list of sizes"),
        ({"x": F32 | {"shape": [2**33, 2**33]}}, "tensor x says that it has 24 bytes"),
        ({"x": F32 | {"shape": [-2, -3]}}, "tensor x has a shape that is no list"),
        ({"x": F32 | {"shape": [2.0, 3]}}, "tensor x has a shape that is no list"),
        ({"x": F32 | {"shape": [True, 6]}}, "tensor x has a shape that is no list"),
        ({"x": F32 | {"shape": [1] * 999}}, "tensor x has a shape that is no list"),
        ({"x": F32 | {"shape": "23"}}, "tensor x has a shape that is no list"),
        ({"x": F32 | {"dtype": "F31"}}, "tensor x has a dtype that is not known here: F31"),
        ({"x": F32 | {"dtype": ["F32"]}}, "tensor x has a dtype that is not known"),
        ({"x": F32 | {"data_offsets": [24, 0]}}, "tensor x has data_offsets that are no"),
        ({"x": F32 | {"data_offsets": [0, 24, 24]}}, "tensor x has data_offsets that are no"),
        ({"x": F32 | {"data_offsets": [-24, 0]}}, "tensor x has data_offsets that are no"),
        ({"x": F32 | {"data_offsets": [8, 32]}}, "tensor x leaves a gap before it"),
        ({"x": F32 | {"data_offsets": [10**9, 10**9 + 24]}}, "tensor x leaves a gap before it"),
        ({"x": F32, "y": F32}, "tensor y overlaps another"),
        ({"x": F32, "y": F32 | {"data_offsets": [24, 48]}}, "ends within y"),
        ({"x": {"dtype": "F32"}}, "tensor x must have a dtype, a shape and data_offsets"),
        ({"x": None}, "tensor x must have a dtype"),
        ({"../\x1b[2J": None}, r"tensor '\.\./\\x1b\[2J' must have"),
        ({"x" * 10**6: None}, "tensor x{79}… must have"),
        ({}, "24 bytes at its end belong to no tensor"),
        ([F32], "its header is no JSON object"),
        ({"__metadata__": {"format": 1}, "x": F32}, "__metadata__ must hold text only"),
        (b'{"x": 1, "x": 2}', "the header has x twice"),
        (b'{"x": {"dtype": "F32", "dtype": "F16"}}', "the header has dtype twice"),
        (b"[" * 100_000, "its header is no JSON"),
        (b'{"x": ' * 100_000, "its header is no JSON"),
        (b'{"x": NaN}', "its header is no JSON"),
        (b'{"x": ' + b"9" * 5000 + b"}", "its header is no JSON"),
        (b'{"\xff": 1}', "its header is no JSON"),
        (b'{"\\ud800": 1}', r"tensor '\\ud800' must have"),
        (b"", "its header is no JSON"),
    ],
)
def test_a_header_that_lies_is_refused_by_name(header, message):
    content = packed(header, bytes(24))
    with pytest.raises((SafetensorError, ValueError)):  # nobody else reads it either
        deserialize(content)
    with pytest.raises(UserError, match=message):
        read(content)


def test_a_field_that_the_format_does_not_have_is_refused():
    message = refused(packed({"x": F32 | {"more": 1}}, bytes(24)))
    assert "tensor x must have a dtype, a shape and data_offsets, and nothing else" in message


@pytest.mark.parametrize("size", range(0, 97, 3))
def test_a_file_cut_anywhere_is_refused(size):
    content = packed({"x": F32}, bytes(24))
    assert read(content)
    assert "a.safetensors is no intact safetensors file" in refused(content[:size])


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 25 << 30, 1000])
def test_a_length_beyond_the_file_is_refused_without_reading(length):
    assert "it ends within its header" in refused(packed(b"{}", bytes(24), length))


@pytest.mark.slow
def test_a_million_keys_take_neither_time_nor_memory(tmp_path):
    entry = '"k%d":{"dtype":"F32","shape":[],"data_offsets":[%d,%d]}'
    keys = ",".join(entry % (i, 4 * i, 4 * i + 4) for i in range(10**6))
    file = tmp_path / "many.safetensors"
    file.write_bytes(packed(f"{{{keys}}}".encode(), bytes(4 * 10**6)))
    del keys
    with within(1):
        tracemalloc.start()
        with (
            file.open("rb") as opened,
            pytest.raises(UserError, match=r"its header has 6.,...,... byt"),
        ):
            read_header(opened, "a.safetensors")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.slow
def test_the_largest_header_that_is_read_takes_bounded_memory(tmp_path):
    text = b'{"x":[' + b"[]," * ((MAX_HEADER - 20) // 3) + b"[]]}"  # the most objects for a byte
    code = (
        "import sys; from benchmarks.contenders.resident import peak\n"
        "from mlx_yoda.adapters.safetensors_header import read_header\n"
        "from mlx_yoda.errors import UserError\n"
        "try: read_header(open(sys.argv[1], 'rb'), 'a')\n"
        "except UserError as error: print(error)\n"
        "print(peak() >> 20)"  # ru_maxrss would be the parent's: Linux hands it on
    )
    file = tmp_path / "nested.safetensors"
    file.write_bytes(packed(text))
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, cwd=ROOT
    )
    message, megabytes = done.stdout.splitlines()
    assert "tensor x must have" in message
    assert int(megabytes) < 700


def test_a_sparse_file_of_a_terabyte_is_refused_at_once(tmp_path):
    file = tmp_path / "sparse.safetensors"
    with file.open("wb") as opened:
        opened.write(packed({"x": F32}, bytes(24)))
        opened.truncate(1 << 40)
    with file.open("rb") as opened, pytest.raises(UserError, match="more than an adapter can need"):
        read_header(opened, "a.safetensors")


numbers = st.one_of(st.integers(-1, 40), st.integers(), st.sampled_from([2**31, 2**32, 2**64, 6.5]))
nearly = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*DTYPE_BYTES, "F31", 3]),
        "shape": st.lists(numbers, max_size=3) | st.just([2, 3]),
        "data_offsets": st.lists(numbers, min_size=2, max_size=2) | st.just([0, 24]),
    }
)
headers = st.dictionaries(st.text(max_size=5) | st.just("__metadata__"), nearly, max_size=4)
whole = st.lists(st.integers(0, 5), max_size=4).map(
    lambda sizes: bytearray(
        safetensors.numpy.save({f"t{i}": np.ones(size, np.float32) for i, size in enumerate(sizes)})
    )
)


@st.composite
def damaged(draw):
    """A right file with some bytes changed, cut or added."""
    content = draw(whole)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(content)))
        content[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(content)


@pytest.mark.slow
@given(
    content=st.one_of(
        damaged(), st.builds(packed, headers, st.binary(max_size=64)), st.binary(max_size=200)
    )
)
def test_whatever_is_accepted_the_library_reads_alike(content):
    try:
        entries = read(content)
    except UserError as error:
        assert len(str(error)) < 400
        return
    theirs = dict(deserialize(content))
    assert {name: list(entry.shape) for name, entry in entries.items()} == {
        name: tensor["shape"] for name, tensor in theirs.items()
    }
    for name, entry in entries.items():
        data = content[entry.start : entry.start + entry.size]
        assert data == bytes(theirs[name]["data"])
        assert entry.dtype == theirs[name]["dtype"]


@given(st.text())
def test_a_name_is_shown_in_one_short_printable_line(name):
    assert shown(name).isprintable()
    assert len(shown(name)) <= 80
