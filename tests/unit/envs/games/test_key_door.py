"""The rules of KeyDoor by hand-worked cases."""

from __future__ import annotations

from envs.games.key_door import KeyDoor
from tests.unit.envs.games.experts import success


def test_the_expert_always_opens_the_door() -> None:
    assert success(KeyDoor(), 0.0, 200) == 1.0


def walk(env: KeyDoor, goal: tuple[int, int]) -> list[float]:
    rewards = []
    while env._agent != goal:
        down, right = goal[0] - env._agent[0], goal[1] - env._agent[1]
        word = ("down" if down > 0 else "up") if down else ("right" if right > 0 else "left")
        rewards.append(env.step(f"<action>{word}</action>").reward)
    return rewards


def test_key_then_door_gives_one_and_a_tenth() -> None:
    env = KeyDoor()
    env.reset(1)
    door_without_key = KeyDoor()
    door_without_key.reset(1)
    walk(door_without_key, door_without_key._door)
    assert door_without_key.step("<action>interact</action>").reward == 0
    walk(env, env._key)
    assert env.step("<action> Interact ").reward == 0.1  # trimmed, lower-cased, unclosed
    walk(env, env._door)
    last = env.step("<action>interact</action>")
    assert (last.reward, last.terminated, last.success) == (1.0, True, True)


def test_time_out_costs_half_a_point_and_bumps_cost_steps() -> None:
    env = KeyDoor(max_steps=35)
    env.reset(0)
    results = [env.step("<action>up</action>") for _ in range(35)]
    assert [r.reward for r in results] == [0.0] * 34 + [-0.5]
    assert (results[-1].truncated, results[-1].terminated) == (True, False)


def test_no_held_out_layout_is_ever_trained_on() -> None:
    train, heldout = KeyDoor(split="train"), KeyDoor(split="heldout")
    trained, held = set(), set()
    for seed in range(3000):
        train.reset(seed)
        trained.add(train.layout)
        heldout.reset(seed)
        held.add(heldout.layout)
    assert not trained & held
    assert len(held) > 250
