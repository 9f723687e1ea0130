"""msgpack with arrays: what openpi packs is read, what it would read is packed, and nothing can blow it up."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.protocol.msgpack_numpy import Limits, packed, unpacked


def openpi_packs(value: object) -> bytes:
    """As its published client does: maps with bytes as keys."""

    def described(item: object) -> object:
        if isinstance(item, np.ndarray):
            return {b"__ndarray__": True, b"data": item.tobytes(), b"dtype": item.dtype.str, b"shape": item.shape}
        assert isinstance(item, np.generic)
        return {b"__npgeneric__": True, b"data": item.item(), b"dtype": item.dtype.str}

    data: bytes = msgpack.packb(value, default=described)
    return data


def array_map(data: bytes = b"\0" * 4, dtype: object = "|u1", shape: object = (4,)) -> bytes:
    packed_map: bytes = msgpack.packb({b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape})
    return packed_map


@pytest.mark.parametrize("dtype", ["|u1", "<f4", ">f4", "<f8", "<f2", "<i8", "|b1", "<u2"])
def test_an_array_that_openpi_packs_comes_out_equal(dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)

    found = unpacked(openpi_packs({"observation/image": array}))["observation/image"]

    assert found.dtype == np.dtype(dtype)
    assert np.array_equal(found, array)


def test_an_array_in_another_memory_order_is_packed_by_its_values() -> None:
    array = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4))[::2]

    assert np.array_equal(unpacked(packed(array)), array)


def test_numpy_numbers_and_texts_are_numbers_and_texts() -> None:
    found = unpacked(openpi_packs({"gripper": np.float32(0.5), "prompt": np.str_("fold"), "done": np.bool_(True)}))

    assert found == {"gripper": np.float32(0.5), "prompt": "fold", "done": True}


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False)
        | st.text()
        | st.binary(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    )
)
def test_plain_values_go_through_unchanged(value: object) -> None:
    assert unpacked(packed(value), Limits(max_depth=64)) == value


@pytest.mark.parametrize(
    ("dtype", "data"),
    [("|O", b"\0" * 8), ("<c8", b"\0" * 8), ("|V8", b"\0" * 8), ("<m8", b"\0" * 8), ("f4,f4", b"\0" * 8)],
)
def test_arrays_of_anything_but_numbers_are_refused(dtype: str, data: bytes) -> None:
    with pytest.raises(ValueError, match="dtype"):
        unpacked(array_map(data, dtype, (1,)))


@pytest.mark.parametrize(
    ("shape", "complaint"),
    [((5,), "do not fill"), ((-4,), "sizes of 0 or more"), ((2**31,), "sizes of 0 or more"), ((1,) * 9, "at most 8")],
)
def test_a_shape_that_does_not_fit_its_data_is_refused(shape: tuple[int, ...], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        unpacked(array_map(shape=shape))


def test_a_list_that_claims_four_billion_items_costs_nothing() -> None:
    with pytest.raises(ValueError, match="ends in the middle"):
        unpacked(b"\xdd\xff\xff\xff\xff\x01")


def test_many_small_values_are_refused_before_they_are_all_built() -> None:
    with pytest.raises(ValueError, match="more than 16384 values"):
        unpacked(packed([[None] * 1000] * 100))


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(ValueError, match="nested deeper"):
        unpacked(b"\x91" * 1_000_000 + b"\xc0")


def test_a_message_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(ValueError, match="the limit is 10"):
        unpacked(packed("long enough to be over"), Limits(max_bytes=10))


def test_extension_types_are_refused() -> None:
    with pytest.raises(ValueError, match="extension"):
        unpacked(packed({"a": 1})[:-1] + msgpack.packb(msgpack.ExtType(4, b"pickle")))


def test_a_second_value_behind_the_first_is_refused() -> None:
    with pytest.raises(ValueError, match="follow the message"):
        unpacked(packed(1) + packed(2))


@given(st.binary(max_size=200))
def test_whatever_comes_in_it_is_read_or_refused(data: bytes) -> None:
    try:
        unpacked(data)
    except ValueError:
        return


def test_what_a_reader_of_numbers_could_not_take_is_not_packed() -> None:
    with pytest.raises(TypeError, match="cannot send"):
        packed({"image": np.array([object()])})
