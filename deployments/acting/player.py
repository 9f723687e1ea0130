"""A MineRL player steered by a vision-language policy: its last frames in, one action out."""

from __future__ import annotations

import math
import uuid

from configs.acting import ActConfig, GameConfig
from deployments.acting.answers import UnreadableAnswer
from deployments.acting.counts import Counts
from deployments.acting.game import game_turns, play_schema, read_play, task_text
from deployments.errors import PolicyError
from deployments.protocol.act import Chat, ChatRequest
from deployments.protocol.game import PlayRequest, PlayResult, no_op


class Player:
    """Remembers nothing: the client tells the frames that came before. `check` costs nothing and comes
    first: one inference may answer several requests of a session, and an invalid one must not spoil it."""

    def __init__(self, name: str, game: GameConfig, config: ActConfig, chat: Chat, counts: Counts) -> None:
        self._name = name
        self._game = game
        self._max_images = config.max_images
        self._chat = chat
        self._counts = counts
        self._schema = play_schema()

    def check(self, request: PlayRequest) -> None:
        """Raises PolicyError for a request that cannot be answered."""
        task_text(request.task, self._game)
        if not request.steps:
            raise PolicyError("invalid_request", "Either 'image' or 'history' must be provided")
        if not (math.isfinite(request.temperature) and 0 <= request.temperature <= 2):
            raise PolicyError("invalid_request", f"temperature must be in 0..2, got {request.temperature}")
        if request.max_tokens < 1 or request.max_history_length < 1:
            raise PolicyError("invalid_request", "max_tokens and max_history_length must be at least 1")

    async def infer(self, request: PlayRequest) -> PlayResult:
        shown = list(request.steps)[-min(request.max_history_length, self._max_images) :]
        said = await self._chat(
            ChatRequest(
                request_id=f"{request.request_id}-{uuid.uuid4().hex[:12]}",  # several games may count from 1
                turns=game_turns(request.task, shown, self._game),
                deadline_unix_s=request.deadline_unix_s,
                temperature=request.temperature,
                max_tokens=request.max_tokens,
                json_schema=self._schema,
                min_weight_version=request.min_weight_version,
            )
        )
        try:
            (action, reasoning), readable = read_play(said.text, self._game), True
        except UnreadableAnswer as error:
            self._counts.unreadable[self._name, "play"] += 1
            action, reasoning, readable = no_op(), f"The answer could not be read: {error}", False
        return PlayResult(
            request_id=request.request_id,
            action=action,
            reasoning=reasoning,
            step=request.step,
            weight_version=said.weight_version,
            parse_ok=readable,
            queue_ms=said.queue_ms,
            infer_ms=said.infer_ms,
        )
