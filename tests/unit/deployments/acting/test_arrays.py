"""Arrays and vectors as JSON spells them: plain numbers in, everything else refused by name."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from deployments.acting.arrays import (
    array_from_numpy_json,
    bytes_from_base64,
    number_type,
    vector_from_array,
    vector_from_json,
)
from deployments.errors import PolicyError

numbers = hnp.integer_dtypes() | hnp.unsigned_integer_dtypes() | hnp.floating_dtypes(sizes=(16, 32, 64))


def as_json(array: NDArray[np.generic], **changes: object) -> dict[str, object]:
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"__numpy__": data, "dtype": array.dtype.str, "shape": list(array.shape), **changes}


@given(array=hnp.arrays(numbers, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))
def test_an_array_comes_back_as_it_was_in_either_byte_order(array: NDArray[np.generic]) -> None:
    found = array_from_numpy_json(as_json(array), max_bytes=1 << 20)

    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


@pytest.mark.parametrize(
    "name", ["|O", "O", "object", "|V4", "|S3", "<U2", "<c8", "<M8[s]", "u1,u1", "(9,)u1", 7, None]
)
def test_a_type_that_is_no_number_is_refused(name: object) -> None:
    with pytest.raises(PolicyError, match="dtype must name integers or floats") as refusal:
        number_type(name)
    assert refusal.value.kind == "invalid_request"


@pytest.mark.parametrize(
    "changes",
    [
        {"__numpy__": None},
        {"__numpy__": "A"},
        {"__numpy__": ""},
        {"shape": None},
        {"shape": [3]},
        {"shape": [-2, -1]},
        {"shape": [True, 2]},
        {"shape": [1, 1, 1, 1, 2]},
        {"shape": ["2"]},
        {"dtype": None},
    ],
)
def test_an_array_whose_parts_do_not_fit_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(PolicyError) as refusal:
        array_from_numpy_json(as_json(np.array([1, 2], np.uint8), **changes), max_bytes=100)
    assert refusal.value.kind == "invalid_request"


def test_a_large_array_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(PolicyError, match="an array of 101 bytes") as refusal:
        array_from_numpy_json({"__numpy__": "not even base64", "dtype": "|u1", "shape": [101]}, max_bytes=100)
    assert refusal.value.kind == "too_large"


def test_base64_is_bounded_and_may_have_line_breaks() -> None:
    data = bytes(range(100))
    text = base64.encodebytes(data).decode()

    assert bytes_from_base64(text, max_bytes=100) == data
    with pytest.raises(PolicyError) as refusal:
        bytes_from_base64(text, max_bytes=97)
    assert refusal.value.kind == "too_large"
    with pytest.raises(PolicyError) as refusal:
        bytes_from_base64(" " * 1000, max_bytes=97)
    assert refusal.value.kind == "too_large"


@given(values=st.lists(st.floats(-1e6, 1e6, width=32), max_size=9))
def test_a_vector_is_the_same_as_a_list_and_as_an_array(values: list[float]) -> None:
    expected = np.array(values, np.float32)

    for spelt in (values, as_json(expected), as_json(expected.astype(">f8"))):
        found = vector_from_json(spelt, "proprio")
        assert found.dtype == np.float32
        assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    "value",
    [
        "abc",
        7,
        None,
        [1, "2"],
        [1, None],
        [True],
        [[1, 2]],
        [float("nan")],
        [float("inf")],
        [1e300],
        [10**400],
        [0.0] * 4097,
        as_json(np.zeros((2, 2))),
        as_json(np.array([np.nan])),
    ],
)
def test_what_is_no_row_of_finite_numbers_is_refused_with_the_name_of_the_field(value: object) -> None:
    with pytest.raises(PolicyError, match="proprio") as refusal:
        vector_from_json(value, "proprio")
    assert refusal.value.kind == "invalid_request"


def test_a_scalar_array_is_no_vector() -> None:
    with pytest.raises(PolicyError, match=r"float64 \[\]"):
        vector_from_array(np.array(1.0), "state")
