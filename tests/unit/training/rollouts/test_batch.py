"""What of a step is trained on, by which rank, and what the loss is divided by."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from configs.training import AlgorithmConfig
from training.algorithms.advantages import ADVANTAGES
from training.algorithms.losses import LOSSES, LossInputs
from training.learner.microbatches import collate
from training.rollouts.batch import Share, assemble, earned, fetched, plan, share_of, without_spread
from training.rollouts.batch import given as given_to
from training.rollouts.packed import pack
from training.rollouts.samples import group_samples
from training.tracking.metrics import MEANING, rollout_metrics
from training.types import Batch, Denominators, Episode, Group, Task, Turn

CENTERED = AlgorithmConfig(advantage="group_centered")


def group(index: int, *rewards: float, turns: int = 1) -> Group:
    """Siblings with one training sequence a turn (no history), three tokens each, two of them chosen."""
    task = Task("e", 0, index)
    return Group(
        task,
        tuple(
            Episode(
                task,
                sibling,
                tuple(
                    Turn((10 + sibling,), (20 + n, 2), (-0.5, -0.25), 3, reward if n == turns - 1 else 0.0)
                    for n in range(turns)
                ),
                "completed",
            )
            for sibling, reward in enumerate(rewards)
        ),
    )


def packed(*groups: Group) -> tuple[list, list]:
    both = [pack(group, {}) for group in groups]
    return [summary for summary, _ in both], [samples for _, samples in both]


def assembled(share: Share) -> Batch:
    return assemble(share, fetched(share, lambda references: references))


def test_groups_without_spread_are_left_out_and_counted() -> None:
    summaries, _ = packed(group(0, 1.0, 1.0), group(1, 1.0, 0.0), group(2, 0.0, 0.0))
    planned = plan(summaries, CENTERED, 1)
    assert planned.dropped_groups == 2
    # three groups of two episodes, one sequence each, two chosen tokens each; one of them is trained on
    assert planned.denominators == Denominators(tokens=12, episodes=6, groups=1, trained_tokens=4)
    assert [place.advantage for place in planned.shares[0]] == [0.5, -0.5]


@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=3, max_size=3), min_size=1, max_size=5),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_every_sequence_goes_to_one_rank_and_the_denominators_count_them_all(
    rewards: list[list[float]], turns: int, world: int
) -> None:
    groups = [group(index, *values, turns=turns) for index, values in enumerate(rewards)]
    summaries, samples = packed(*groups)
    planned = plan(summaries, CENTERED, world)
    batches = [assembled(share_of(rank, planned, samples, 0, {})) for rank in range(world)]
    trained = [sample for batch in batches for sample in batch.samples]
    assert len({(place.group, place.sequence) for share in planned.shares for place in share}) == len(trained)
    assert planned.denominators.groups == sum(len(set(values)) > 1 for values in rewards)
    assert planned.denominators.groups * len(rewards[0]) * turns == len(trained)
    assert planned.denominators.trained_tokens == sum(sample.chosen for sample in trained)
    assert planned.denominators.episodes == len(rewards) * len(rewards[0])


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo", "cispo"])
def test_a_group_weighs_the_same_however_many_others_have_spread(loss: str) -> None:
    """One group left of many would make a whole step of its own otherwise."""
    algorithm = AlgorithmConfig(advantage="group_centered", loss=loss)

    def gradient_of_first(*groups: Group) -> list[float]:
        summaries, samples = packed(*groups)
        planned = plan(summaries, algorithm, 1)
        batch = assembled(share_of(0, planned, samples, 0, {}))
        first = [sample for sample in batch.samples if sample.group == 0]
        part = collate(first)
        logp = part.sampler_logp.clone().requires_grad_()
        inputs = LossInputs(logp, part.sampler_logp, part.advantage, part.mask, torch.ones_like(logp))
        LOSSES[loss](inputs, batch.denominators, algorithm).backward()
        assert logp.grad is not None
        return sorted(logp.grad.flatten().tolist())

    alone = gradient_of_first(group(0, 1.0, 0.0), group(1, 1.0, 1.0), group(2, 0.0, 0.0))
    among = gradient_of_first(group(0, 1.0, 0.0), group(1, 1.0, 0.0), group(2, 0.0, 1.0))
    assert alone == pytest.approx(among)
    assert any(alone)


@pytest.mark.parametrize("loss", ["grpo", "gspo", "dr_grpo", "dapo", "cispo"])
def test_an_episode_weighs_the_same_however_many_sequences_it_is(loss: str) -> None:
    """Without a history every turn is a sequence: in a mean over sequences an episode of nine turns weighed nine times
    one of one."""
    summaries, _ = packed(group(0, 1.0, 0.0), group(1, 1.0, 0.0, turns=9))
    planned = plan(summaries, AlgorithmConfig(advantage="group_centered", loss=loss), 1)
    assert planned.denominators.episodes == 4
    means_over_sequences = loss in ("grpo", "gspo")
    for index, turns in ((0, 1), (1, 9)):
        advantages = [place.advantage for place in planned.shares[0] if place.group == index]
        each = 0.5 / turns if means_over_sequences else 0.5
        assert sorted(advantages) == pytest.approx([-each] * turns + [each] * turns)


def test_packed_samples_are_those_of_the_episodes() -> None:
    whole = group(0, 1.0, 0.0, 0.5, turns=2)
    summaries, samples = packed(whole)
    (share,) = [share_of(0, plan(summaries, CENTERED, 1), samples, 4, {"a": 1.0})]
    batch = assembled(share)
    expected = group_samples(whole, [0.5, -0.5, 0.0], 0)
    assert [tuple(s.token_ids_T) for s in batch.samples] == [tuple(s.token_ids_T) for s in expected]
    assert [tuple(s.mask_T) for s in batch.samples] == [tuple(s.mask_T) for s in expected]
    assert [tuple(s.sampler_logp_T) for s in batch.samples] == [tuple(s.sampler_logp_T) for s in expected]
    assert [(s.advantage, s.weight_version) for s in batch.samples] == [
        (s.advantage, s.weight_version) for s in expected
    ]
    assert (batch.step, batch.metrics) == (4, {"a": 1.0})


def test_a_rank_is_sent_only_the_groups_it_trains_on() -> None:
    summaries, _ = packed(group(0, 1.0, 0.0), group(1, 1.0, 1.0))
    planned = plan(summaries, CENTERED, 1)
    assert list(share_of(0, planned, ["first", "second"], 0, {}).samples.values()) == ["first"]


def test_a_long_sequence_counts_its_chosen_tokens_whatever_the_type_of_its_mask() -> None:
    task = Task("e", 0, 0)
    turn = Turn((1,), (2,) * 300, (-0.1,) * 300, 0, 1.0)
    _, samples = pack(Group(task, (Episode(task, 0, (turn,), "completed"),)), {})
    assert samples.sample(0, 1.0, 0).chosen == 300  # int8 would wrap at 127
    assert isinstance(pickle.loads(pickle.dumps(samples)).token_ids_N, np.ndarray)


def test_what_went_wrong_is_in_the_steps_metrics_and_explained() -> None:
    task = Task("e", 0, 0)
    turn = Turn((1,), (2,), (-0.1,), 0, 0.0)
    episodes = (
        Episode(task, 0, (turn,), "truncated", truncation="context_full"),
        Episode(task, 1, (turn,), "completed"),
    )
    counts = {"retries_infra_failed": 3, "groups_replayed_OwnerDiedError": 1, "groups_replayed_NodeDiedError": 1}
    metrics = rollout_metrics([pack(Group(task, episodes), counts)[0]])
    assert metrics["rollout/truncated_context_full"] == 0.5
    assert metrics["rollout/truncated_turn_cap"] == 0.0
    assert metrics["rollout/retries_infra_total"] == 3
    assert metrics["rollout/groups_replayed_total"] == 2
    assert set(metrics) <= set(MEANING)


@pytest.mark.parametrize("world", [1, 2])
def test_a_batch_of_uniform_groups_is_empty_on_every_rank(world: int) -> None:
    summaries, samples = packed(group(0, 1.0, 1.0))
    planned = plan(summaries, CENTERED, world)
    assert [assembled(share_of(r, planned, samples, 0, {})).samples for r in range(world)] == ([()] * world)


@pytest.mark.parametrize("loss", ["dapo", "grpo"])
def test_what_a_sequence_has_earned_is_what_the_plan_gave_it(loss: str) -> None:
    algorithm = AlgorithmConfig(advantage="group_centered", loss=loss)
    summaries, samples = packed(group(0, 1.0, 0.0, turns=3), group(1, 1.0, 1.0), group(2, 0.0, 0.5, turns=2))
    share = share_of(0, plan(summaries, algorithm, 1), samples, 0, {})
    given = [place.advantage for place in share.places]
    assert earned(share, fetched(share, lambda refs: refs), algorithm) == pytest.approx(given)
    others = {at: replace(each, return_G=each.return_G[::-1]) for at, each in fetched(share, lambda refs: refs).items()}
    assert earned(share, others, algorithm) == pytest.approx([-advantage for advantage in given])


BY_TURNS = AlgorithmConfig(advantage="group_centered", credit="turn_to_go")


def paid(index: int, *rewards_GH: list[float], extends: bool) -> Group:
    """Siblings whose k-th turn has two tokens of context and k + 1 chosen ones. `extends`: one sequence an episode."""
    task = Task("e", 0, index)

    def turn(k: int, reward: float) -> Turn:
        return Turn((10, 11), (20,) * (k + 1), (-0.5,) * (k + 1), 3, reward, extends=extends and k > 0)

    return Group(
        task,
        tuple(
            Episode(task, sibling, tuple(turn(k, reward) for k, reward in enumerate(rewards)), "completed")
            for sibling, rewards in enumerate(rewards_GH)
        ),
    )


def test_the_turns_of_one_sequence_get_advantages_of_their_own() -> None:
    """To go: [3, 1] and [1, 1, 1]: the first turns differ by 2, the second are equal, the third is alone."""
    summaries, samples = packed(paid(0, [2.0, 1.0], [0.0, 0.0, 1.0], extends=True))
    share = share_of(0, plan(summaries, BY_TURNS, 1), samples, 0, {})
    assert sorted(place.advantage for place in share.places) == [(-1.0, 0.0, 0.0), (1.0, 0.0)]
    by_length = {len(sample.token_ids_T): sample for sample in assembled(share).samples}
    # context 2, chosen 1; context 2, chosen 2; context 2, chosen 3
    assert list(by_length[7].advantage) == [1.0] * 3 + [0.0] * 4
    assert list(by_length[12].advantage) == [-1.0] * 3 + [0.0] * 9


def test_turns_that_are_sequences_have_one_advantage_each() -> None:
    summaries, samples = packed(paid(0, [2.0, 1.0], [0.0, 0.0, 1.0], extends=False))
    batch = assembled(share_of(0, plan(summaries, BY_TURNS, 1), samples, 0, {}))
    assert sorted((sample.chosen, sample.advantage) for sample in batch.samples) == [
        (1, -1.0),
        (1, 1.0),
        (2, 0.0),
        (2, 0.0),
        (3, 0.0),
    ]


@pytest.mark.parametrize("extends", [True, False])
@pytest.mark.parametrize("credit", ["episode", "turn_to_go", "anchor_state"])
@pytest.mark.parametrize("loss", ["dapo", "grpo"])
def test_the_advantages_of_turns_are_checked_against_the_rewards_that_travelled(
    extends: bool, credit: str, loss: str
) -> None:
    algorithm = AlgorithmConfig(advantage="group_centered", credit=credit, loss=loss)
    groups = (
        paid(0, [2.0, 1.0], [0.0, 0.0, 1.0], [0.5], extends=extends),
        paid(1, [0.0], [1.0], [0.0], extends=extends),
        paid(2, [0.0, 0.5, 0.25], [0.5, 0.0], [0.0, 0.0], extends=extends),
    )
    summaries, samples = packed(*groups)
    share = share_of(0, plan(summaries, algorithm, 1), samples, 0, {})
    arrived = fetched(share, lambda references: references)
    assert earned(share, arrived, algorithm) == given_to(share)
    swapped = {
        at: replace(
            each,
            return_G=each.return_G[::-1].copy(),
            turns=replace(each.turns, reward_K=each.turns.reward_K[::-1].copy()),
        )
        for at, each in arrived.items()
    }
    assert earned(share, swapped, algorithm) != pytest.approx(given_to(share))


def test_equal_returns_may_still_be_worth_a_step_where_turns_are_compared() -> None:
    early_and_late = paid(0, [1.0, 0.0], [0.0, 1.0], extends=True)
    all_alike = paid(1, [1.0, 0.0], [1.0, 0.0], extends=True)
    summaries, _ = packed(early_and_late, all_alike)
    assert [without_spread(each, CENTERED) for each in summaries] == [True, True]
    assert [without_spread(each, BY_TURNS) for each in summaries] == [False, True]
    assert plan(summaries, BY_TURNS, 1).dropped_groups == 1


@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.1, 0.3]), min_size=1, max_size=4), min_size=2, max_size=4),
    st.booleans(),
    st.sampled_from(["group_centered", "group_normalized", "leave_one_out"]),
)
def test_by_default_a_sequence_has_exactly_its_episodes_advantage(
    rewards_GH: list[list[float]], extends: bool, advantage: str
) -> None:
    played = paid(0, *rewards_GH, extends=extends)
    summaries, _ = packed(played)
    planned = plan(summaries, AlgorithmConfig(advantage=advantage, drop_uniform_groups=False), 1)
    expected = ADVANTAGES[advantage](played.returns_G)
    per_sibling = [1 if extends else len(rewards) for rewards in rewards_GH]
    by_place = sorted(planned.shares[0], key=lambda place: place.sequence)
    assert [place.advantage for place in by_place] == [
        value for value, count in zip(expected, per_sibling, strict=True) for _ in range(count)
    ]
