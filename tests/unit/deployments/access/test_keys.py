"""API keys: what is let in, what is not, and what guessing may cost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.access import AccessConfig
from configs.base import ConfigError
from deployments.access import keys as module
from deployments.access.keys import ANONYMOUS, Keys, from_authorization, hashed_line, new_key
from deployments.errors import PolicyError

OWN = "a-key-that-a-user-brought-along"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(scope="module")
def robot() -> module.NewKey:
    return new_key("robot")


@pytest.fixture(scope="module")
def hashes(robot: module.NewKey) -> dict[str, str]:
    lines = [robot.line, hashed_line("desk", OWN)]
    return {name: hashed for name, _, hashed in (line.partition(":") for line in lines)}


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names whose hashes were computed."""
    computed: list[str] = []
    verify: Callable[[str, str], bool] = module._matches

    def counting(stored: str, presented: str) -> bool:
        computed.append(presented)
        return verify(stored, presented)

    monkeypatch.setattr(module, "_matches", counting)
    return computed


def wrong(number: int) -> str:
    return f"rw_robot_{number:048x}"


async def kind_of(keys: Keys, presented: str | None) -> str:
    with pytest.raises(PolicyError) as caught:
        await keys.authenticate(presented)
    return caught.value.kind


async def test_a_key_lets_its_owner_in_by_name(hashes: dict[str, str], robot: module.NewKey) -> None:
    keys = Keys(hashes)

    assert await keys.authenticate(robot.key) == "robot"
    assert await keys.authenticate(OWN) == "desk"
    assert keys.check(robot.key) == "robot"


def test_a_key_that_is_new_is_checked_without_a_loop_too(hashes: dict[str, str], robot: module.NewKey) -> None:
    keys = Keys(hashes)

    assert keys.check(robot.key) == "robot"
    with pytest.raises(PolicyError, match="missing or invalid API key"):
        keys.check(wrong(1))


async def test_any_other_key_is_unauthenticated(hashes: dict[str, str], robot: module.NewKey) -> None:
    keys = Keys(hashes)
    almost = robot.key[:-1] + ("0" if robot.key[-1] != "0" else "1")

    nobodys = "rw_nobody_" + "0" * 48
    for presented in (None, "", almost, robot.key.upper(), "x" * 10_000, nobodys, "\udcff€", wrong(1)):
        assert await kind_of(keys, presented) == "unauthenticated", presented


async def test_without_keys_everybody_is_anonymous() -> None:
    assert await Keys({}).authenticate(None) == ANONYMOUS
    assert Keys({}).check("anything") == ANONYMOUS


def test_a_line_holds_no_key_and_two_keys_differ(robot: module.NewKey) -> None:
    secret = robot.key.rpartition("_")[2]

    assert secret not in robot.line
    assert robot.line.startswith("robot:$argon2id$")
    assert new_key("robot").key != robot.key


@pytest.mark.parametrize("name", ["", "Robot", "a_b", "-a", "a b", "a" * 33])
def test_a_name_that_could_not_be_read_back_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="a key's name has at most 32"):
        new_key(name)


async def test_a_key_is_hashed_once_for_all_its_requests(
    hashes: dict[str, str], robot: module.NewKey, hashed: list[str]
) -> None:
    keys = Keys(hashes)

    names = await asyncio.gather(*(keys.authenticate(robot.key) for _ in range(20)))
    await keys.authenticate(robot.key)

    assert set(names) == {"robot"}
    assert hashed == [robot.key]


async def test_a_wrong_key_is_hashed_once_however_often_it_comes(hashes: dict[str, str], hashed: list[str]) -> None:
    """A robot with an old key asks ten times a second."""
    keys = Keys(hashes)

    for _ in range(5):
        assert await kind_of(keys, wrong(1)) == "unauthenticated"

    assert hashed == [wrong(1)]


async def test_a_key_of_nobody_costs_no_hash(hashes: dict[str, str], hashed: list[str]) -> None:
    assert await kind_of(Keys(hashes), "rw_nobody_" + "0" * 48) == "unauthenticated"
    assert hashed == []


async def test_a_hash_does_not_hold_up_the_loop(
    hashes: dict[str, str], robot: module.NewKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    proceed = threading.Event()
    monkeypatch.setattr(module, "_matches", lambda *_: proceed.wait(30))
    keys = Keys(hashes)

    checking = asyncio.create_task(keys.authenticate(robot.key))
    await asyncio.sleep(0)
    assert not checking.done()  # and yet this line runs
    proceed.set()

    assert await checking == "robot"


async def test_guesses_are_bounded_and_touch_neither_known_keys_nor_other_names(
    hashes: dict[str, str], robot: module.NewKey, hashed: list[str]
) -> None:
    clock = Clock()
    keys = Keys(hashes, failures_per_minute=3, clock=clock)
    await keys.authenticate(robot.key)

    kinds = [await kind_of(keys, wrong(number)) for number in range(5)]

    assert kinds == ["unauthenticated"] * 3 + ["overloaded"] * 2
    assert hashed == [robot.key, wrong(0), wrong(1), wrong(2)]
    assert await keys.authenticate(robot.key) == "robot"
    assert await keys.authenticate(OWN) == "desk"


async def test_a_refused_guesser_is_told_when_the_next_guess_is_taken(hashes: dict[str, str]) -> None:
    clock = Clock()
    keys = Keys(hashes, failures_per_minute=1, clock=clock)
    await kind_of(keys, wrong(1))
    clock.now_s += 20

    with pytest.raises(PolicyError) as caught:
        await keys.authenticate(wrong(2))
    assert caught.value.retry_after_s == pytest.approx(40)
    clock.now_s += 40
    assert await kind_of(keys, wrong(2)) == "unauthenticated"


async def test_only_so_many_unknown_keys_wait_for_their_hash(
    hashes: dict[str, str], robot: module.NewKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    proceed = threading.Event()
    monkeypatch.setattr(module, "_matches", lambda *_: not proceed.wait(30))
    keys = Keys(hashes)
    waiting = [asyncio.create_task(keys.authenticate(wrong(number))) for number in range(2)]
    await asyncio.sleep(0)  # both have begun

    assert await kind_of(keys, robot.key) == "overloaded"
    proceed.set()

    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [outcome.kind for outcome in outcomes if isinstance(outcome, PolicyError)] == ["unauthenticated"] * 2


async def test_guesses_do_not_push_out_the_keys_that_are_known(
    hashes: dict[str, str], robot: module.NewKey, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBERED_KEYS", 2)
    keys = Keys(hashes)
    await keys.authenticate(robot.key)
    for number in range(4):
        await kind_of(keys, wrong(number))

    await keys.authenticate(robot.key)

    assert hashed.count(robot.key) == 1
    assert len(keys._wrong_keys) == 2


def test_what_a_process_remembers_does_not_hold_keys(hashes: dict[str, str], robot: module.NewKey) -> None:
    keys = Keys(hashes)
    keys.check(robot.key)

    assert robot.key not in repr(vars(keys))
    assert Keys(hashes)._digest(robot.key) != keys._digest(robot.key)


def test_configured_keys_are_read_and_a_damaged_hash_stops_the_start(tmp_path: Path, robot: module.NewKey) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(robot.line)
    assert Keys.of(AccessConfig(keys_file=file), {}).check(robot.key) == "robot"

    file.write_text("robot:$argon2id$nonsense")
    with pytest.raises(ConfigError, match="the hash of API key robot is damaged"):
        Keys.of(AccessConfig(keys_file=file), {})


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Api-Key abc", "abc"),
        ("API-KEY abc", "abc"),
        ("Bearer", None),
        ("Bearer ", None),
        ("Basic abc", None),
        ("abc", None),
        ("", None),
        (None, None),
    ],
)
def test_the_authorization_header_is_read_as_clients_write_it(header: str | None, key: str | None) -> None:
    assert from_authorization(header) == key
