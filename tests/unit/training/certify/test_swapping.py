"""A function is replaced for a while and is itself again, whatever happens."""

from __future__ import annotations

import pytest

from training.certify.swapping import put_in, swapped, take_out


class Greeter:
    def greet(self) -> str:
        return "hello"


def test_a_function_is_replaced_for_a_while_and_is_back_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), swapped(Greeter, "greet", lambda was: lambda self: was(self) + str(1 / 0)):
        Greeter().greet()
    with swapped(Greeter, "greet", lambda was: lambda self: was(self) + "!"):
        assert Greeter().greet() == "hello!"
    assert Greeter().greet() == "hello"


def test_what_is_put_into_a_process_stays_until_it_is_taken_out() -> None:
    put_in(None, lambda: swapped(Greeter, "greet", lambda was: lambda self: "bye"))
    assert Greeter().greet() == "bye"
    take_out(None)
    assert Greeter().greet() == "hello"
