"""Does the learner score what the replicas sample? The largest difference in log-probability, and its named cause.

The core is pure: log-probabilities in, Report out. `check_episodes` is the part with a model; it needs no Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from configs.training import TrainConfig
from training.types import Episode, Sample

if TYPE_CHECKING:
    from training.renderer import ChatRenderer

Scores = list[list[float]]  # one list a sequence, one log-probability a chosen token
Scorer = Callable[[float], Scores]  # the learner's, at a temperature
Prompts = Sequence[tuple[Sequence[int], Sequence[int]]]  # (ids that were sent, ids of the text rendered again)
TOLERANCE = 1e-4  # float32
TOLERANCE_BFLOAT16 = 5e-2  # 8 bits of mantissa, on logits of about 10
LOOSE = 1e-3  # another cause explains a difference when it leaves no more than this
TEMPERATURES = (0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0)


@dataclass(frozen=True)
class Report:
    """Differences sampler - learner over all tokens, by position in the answer, and why."""

    max_difference: float
    mean_difference: float
    by_position: tuple[tuple[float, float], ...]  # (max, mean) of |difference|
    cause: str  # "" when within the tolerance

    @property
    def healthy(self) -> bool:
        return not self.cause


def diagnose(
    sampler: Scores,
    score: Scorer,
    temperature: float,
    versions: Sequence[int],
    expected_version: int,
    tolerance: float = TOLERANCE,
    prompts: Prompts = (),
    other_weights: Mapping[str, Scorer] | None = None,
) -> Report:
    """Compares the sampler's log-probabilities with `score(temperature)`, the learner's at a temperature.

    Causes are tried in the order in which they explain each other: stale weights (an answer of another version, or one
    of `other_weights` fits), wrong temperature (another temperature fits), truncated sampling (the sampler's
    probabilities are higher throughout, as top_p, top_k and min_p make them by leaving tokens out), else unknown.
    Template drift is independent of them: sampler and learner see the same ids and agree, but not on what the template
    renders. It is named when nothing else is wrong.
    """
    learner = score(temperature)
    differences = [[a - b for a, b in zip(s, m, strict=True)] for s, m in zip(sampler, learner, strict=True)]
    flat = [value for row in differences for value in row]
    if not flat:
        raise ValueError("nothing was sampled: no token to compare")
    worst = max(map(abs, flat))
    if worst > tolerance:
        loose = max(LOOSE, tolerance)
        cause = (
            _stale(sampler, temperature, versions, expected_version, other_weights or {}, loose)
            or _other_temperature(sampler, score, temperature, loose)
            or _truncated(flat, tolerance)
            or "stale weights or another model: no temperature and no truncation explains it; publish the learner's "
            "weights again and compare the model folders"
        )
    else:
        cause = _drift(prompts)
    return Report(worst, sum(map(abs, flat)) / len(flat), _by_position(differences), cause)


def _stale(
    sampler: Scores,
    temperature: float,
    versions: Sequence[int],
    expected: int,
    other_weights: Mapping[str, Scorer],
    loose: float,
) -> str:
    stale = sorted({version for version in versions if version != expected})
    if stale:
        return (
            f"stale weights: answers came from version {', '.join(map(str, stale))}, the learner holds "
            f"{expected}; send min_weight_version"
        )
    for name, scorer in other_weights.items():
        if _largest(sampler, scorer(temperature)) < loose:
            return f"stale weights: the replica samples with the weights of {name}; publish the learner's again"
    return ""


def _other_temperature(sampler: Scores, score: Scorer, temperature: float, loose: float) -> str:
    """The nearest of a few temperatures, then a search between its neighbours, to two digits."""

    def misfit(at: float) -> float:
        return _largest(sampler, score(at))

    best = min(TEMPERATURES, key=misfit)
    position = TEMPERATURES.index(best)
    low = TEMPERATURES[max(position - 1, 0)]
    high = TEMPERATURES[min(position + 1, len(TEMPERATURES) - 1)]
    found = best
    if misfit(best) >= loose:
        while high - low > 0.02:
            left, right = low + (high - low) / 3, high - (high - low) / 3
            low, high = (low, right) if misfit(left) < misfit(right) else (left, high)
        around = [round((low + high) / 2 + offset, 2) for offset in (-0.01, 0.0, 0.01)]
        found = min(around, key=misfit)
    if found == temperature or misfit(found) >= loose:
        return ""
    return f"wrong temperature: the sampler used {found:g}, the learner divides by {temperature:g}"


def _truncated(flat: Sequence[float], tolerance: float) -> str:
    if min(flat) <= -tolerance:
        return ""
    return (
        "truncated sampling: the sampler's probabilities are higher throughout; "
        "sample with top_p 1, top_k 0, min_p 0 and without a grammar"
    )


def _drift(prompts: Prompts) -> str:
    for index, (sent, again) in enumerate(prompts):
        if tuple(sent) != tuple(again):
            shared = next(
                (i for i, (a, b) in enumerate(zip(sent, again, strict=False)) if a != b), min(len(sent), len(again))
            )
            return (
                f"template drift: prompt {index} of {len(prompts)} rendered again differs from token {shared} on "
                f"({len(sent)} tokens sent, {len(again)} rendered); compare the chat templates of the model folders"
            )
    return ""


def _largest(sampler: Scores, learner: Scores) -> float:
    return max(abs(a - b) for s, m in zip(sampler, learner, strict=True) for a, b in zip(s, m, strict=True))


def _by_position(differences: Scores) -> tuple[tuple[float, float], ...]:
    found = []
    for position in range(max(map(len, differences))):
        values = [abs(row[position]) for row in differences if len(row) > position]
        found.append((max(values), sum(values) / len(values)))
    return tuple(found)


def check_episodes(
    config: TrainConfig,
    model: Path,
    episodes: Sequence[Episode],
    turns: int,
    version: int = 0,
    others: Sequence[Path] = (),
) -> Report:
    """The doctor on evaluation episodes that a replica played, which should hold `model` as `version`. `others`:
    model folders that it might hold instead. Scores at most `turns` sequences with the learner."""
    from training.renderer import ChatRenderer
    from training.samples import episode_samples

    samples = [sample for episode in episodes for sample in episode_samples(episode, 0.0, 0)][:turns]
    narrow = "bfloat16" in (config.model.dtype, config.serving.engine.dtype)
    return diagnose(
        [[logp for logp, chosen in zip(s.sampler_logp_T, s.mask_T, strict=True) if chosen] for s in samples],
        scorer(config, model, samples),
        config.evaluation.temperature,
        [sample.weight_version for sample in samples],
        version,
        TOLERANCE_BFLOAT16 if narrow else TOLERANCE,
        rendered_again(config, ChatRenderer.load(str(model)), episodes),
        {str(folder): scorer(config, folder, samples) for folder in others},
    )


def scorer(config: TrainConfig, model: Path, samples: list[Sample]) -> Scorer:
    """The learner's log-probabilities of `samples` with the weights of a folder, which is loaded on first use."""
    loaded = []

    def score(temperature: float) -> Scores:
        from training.learner import Learner

        if not loaded:
            loaded.append(Learner(config.model, config.optimizer, config.algorithm, config.learner, str(model)))
        loaded[0].policy.temperature = temperature
        return loaded[0].score(samples)

    return score


def rendered_again(config: TrainConfig, renderer: ChatRenderer, episodes: Sequence[Episode]) -> Prompts:
    """Each prompt that was sent, and the ids of the same messages rendered now from their text.

    A policy may spell a text in other tokens than the tokenizer would, and a growing history carries those on; so
    prompts whose text is equal count as equal. A chat that holds special tokens or cut answers is left out after them.
    """
    from envs.history import make_history
    from envs.registry import make

    special = set(renderer.tokenizer.all_special_ids)
    pairs = []
    for episode in episodes:
        env = make(config.env.name, **(config.env.kwargs | config.env.eval_kwargs))
        try:
            history = make_history(config.env.history, env.spec)
            system = env.spec.system_prompt if config.env.system_prompt is None else config.env.system_prompt
            messages = history.start(system, env.reset(episode.task.seed))
            for turn in episode.turns:
                again = renderer.prompt(messages)
                same = again == turn.prompt_ids or _text(renderer, again) == _text(renderer, turn.prompt_ids)
                pairs.append((turn.prompt_ids, turn.prompt_ids if same else again))
                if history.append_only and not _plain(turn.completion_ids, renderer.end_id, special):
                    break
                result = env.step(turn.text)
                if result.terminated or result.truncated:
                    break
                messages = history.next(turn.text, result.observation)
        finally:
            env.close()
    return pairs


def _text(renderer: ChatRenderer, ids: Sequence[int]) -> str:
    return str(renderer.tokenizer.decode(list(ids), skip_special_tokens=False))


def _plain(answer: Sequence[int], end_id: int, special: set[int]) -> bool:
    return answer[-1] == end_id and not special.intersection(answer[:-1])
