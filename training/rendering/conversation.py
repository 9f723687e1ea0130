"""An episode as the policy sees it: observations and answers in, prompts out."""

from __future__ import annotations

from collections.abc import Sequence

from configs.rollouts import EnvConfig
from envs.base import EnvSpec, Observation
from envs.history import History, make_history
from training.rendering.messages import Message, images_of
from training.rendering.renderer import ChatRenderer
from training.types import Images


def history_and_system(env: EnvConfig, spec: EnvSpec) -> tuple[History, str]:
    """A fresh memory of the configured strategy, and the system prompt: the configured one or the environment's own.
    Raises HistoryUnsupported."""
    return make_history(env.history, spec), spec.system_prompt if env.system_prompt is None else env.system_prompt


class Conversation:
    """History strategy, renderer and system prompt of one episode.

    Whoever plays or replays an episode (rollouts, demonstrations, the doctor) asks the same object, so that all see
    the same prompts:

        conversation = Conversation(config.env, spec, renderer)
        prompt = conversation.start(env.reset(seed))
        prompt = conversation.next(answer_ids, "<move>5</move>", result.observation)

    `added`: the ids that the last call put before the next answer. Where `extends` is true they follow the previous
    prompt and answer, which stay as they were sent; else they are the whole prompt. `images`: those of the whole
    prompt; `added_images`: those that `added` shows, the last ones of the former.
    """

    def __init__(self, env: EnvConfig, spec: EnvSpec, renderer: ChatRenderer) -> None:
        """Raises HistoryUnsupported."""
        self._history, self._system = history_and_system(env, spec)
        self._renderer = renderer
        self.prompt: tuple[int, ...] = ()
        self.added: tuple[int, ...] = ()
        self.images: Images = ()
        self.added_images: Images = ()
        self.extends = False

    def start(self, observation: Observation) -> tuple[int, ...]:
        """The first prompt, token ids."""
        return self._whole(self._history.start(self._system, observation))

    def next(self, answer_ids: Sequence[int], text: str, observation: Observation) -> tuple[int, ...]:
        """The prompt after an answer: `answer_ids` as sampled, `text` what they say. Raises TemplateError."""
        messages = self._history.next(text, observation)
        if not self._history.append_only:
            return self._whole(messages)
        self.added = self._renderer.continuation(answer_ids, messages[-1:])
        self.added_images = images_of(messages[-1:])
        self.images += self.added_images
        self.extends = True
        self.prompt = (*self.prompt, *answer_ids, *self.added)
        return self.prompt

    def _whole(self, messages: Sequence[Message]) -> tuple[int, ...]:
        self.prompt = self.added = self._renderer.prompt(messages)
        self.images = self.added_images = images_of(messages)
        self.extends = False
        return self.prompt
