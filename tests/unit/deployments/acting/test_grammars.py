"""Guided decoding to the schemas: whatever a model samples, the answer ends in time and can be read."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping

import pytest

from configs.acting import ArmConfig, GameConfig
from deployments.acting.arm.answer import move_schema, read_move
from deployments.acting.arm.axes import AXES
from deployments.acting.game import play_schema, read_play
from deployments.protocol.game import BUTTONS, CAMERA

STOP = 256  # the token after the 256 bytes


def walk(schema: Mapping[str, object], rng: random.Random) -> bytes:
    """What a model says that picks any allowed token with the same probability; each token is one byte."""
    xgrammar = pytest.importorskip("xgrammar")
    vocabulary = [f"<0x{byte:02X}>" for byte in range(STOP)] + ["</s>"]
    tokens = xgrammar.TokenizerInfo(vocabulary, vocab_type=xgrammar.VocabType.BYTE_FALLBACK, stop_token_ids=[STOP])
    grammar = xgrammar.GrammarCompiler(tokens).compile_json_schema(json.dumps(schema), any_whitespace=False)
    matcher, said = xgrammar.GrammarMatcher(grammar), bytearray()
    bits = xgrammar.allocate_token_bitmask(1, STOP + 1)
    while True:
        matcher.fill_next_token_bitmask(bits)
        words = bits[0].tolist()
        token = rng.choice([token for token in range(STOP + 1) if words[token // 32] >> token % 32 & 1])
        if token == STOP:
            return bytes(said)
        assert matcher.accept_token(token)
        said.append(token)
        assert len(said) <= 4096, "the answer does not end"


@pytest.mark.parametrize(
    ("schema", "read", "max_tokens"),
    [
        pytest.param(move_schema(), read_move, ArmConfig().max_tokens, id="arm"),
        pytest.param(play_schema(), lambda text: read_play(text, GameConfig()), 512, id="game"),
    ],
)
def test_a_model_that_knows_nothing_gives_an_answer_that_can_be_read_within_the_default_number_of_tokens(
    schema: Mapping[str, object], read: Callable[[str], object], max_tokens: int
) -> None:
    for seed in range(10):
        said = walk(schema, random.Random(seed))
        read(said.decode())
        assert len(said) < max_tokens


def test_the_longest_answers_fit_into_the_default_number_of_tokens_even_at_one_byte_per_token() -> None:
    move = {axis: [max(names.positive, names.negative, key=len), 0.95, "x" * 32] for axis, names in AXES.items()}
    play = {"reasoning": "x" * 120, "action": {**dict.fromkeys(BUTTONS, 0), CAMERA: [-180, -180]}}

    assert len(json.dumps(move)) < ArmConfig().max_tokens
    assert len(json.dumps(play)) < 512
    assert "{0,32}" in json.dumps(move_schema())
    assert "{0,120}" in json.dumps(play_schema())
