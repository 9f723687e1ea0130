"""What a client of the running application notices."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from deployments.errors import PolicyError
from deployments.protocol.generate import GenerateRequest, GenerateResult, Sampling
from deployments.weights.push_steps import FinishPush, PushPart, StartPush

pytestmark = pytest.mark.integration


def generate(stack: Any, *requests: GenerateRequest) -> list[Any]:
    from ray import serve

    from deployments.client.handle import ServeGenerate

    async def run() -> list[Any]:
        call = ServeGenerate(serve.get_deployment_handle("policy", "rayward"))
        return await asyncio.gather(*(call(request) for request in requests), return_exceptions=True)

    return asyncio.run(run())


def request(name: str, **changes: Any) -> GenerateRequest:
    return GenerateRequest(name, [5, 6, 7, 8], **{"sampling": Sampling(max_tokens=4), **changes})


def test_health_names_the_policy_and_its_weight_version(stack: Any) -> None:
    answer = httpx.get(f"{stack.http}/health", timeout=30)
    assert answer.status_code == 200
    body = answer.json()
    assert body["status"] == "healthy"
    assert body["policies"]["policy"]["weight_version"] >= 0


def test_completions_answer_text_with_usage_and_version(stack: Any) -> None:
    body = {"model": "policy", "prompt": "You play X.", "max_tokens": 5, "temperature": 0}
    answer = httpx.post(f"{stack.http}/v1/completions", json=body, timeout=60).json()
    assert answer["object"] == "text_completion"
    assert 1 <= answer["usage"]["completion_tokens"] <= 5
    assert "weight_version" in answer


def test_the_short_way_and_vllms_own_route_say_the_same(stack: Any) -> None:
    body = {"model": "policy", "prompt": "You play X.", "max_tokens": 6, "temperature": 0, "ignore_eos": True}
    short = httpx.post(f"{stack.http}/v1/completions", json=body, timeout=60).json()
    full = httpx.post(f"{stack.http}/v1/completions", json={**body, "best_of": 1, "echo": False}, timeout=60).json()
    assert full["choices"][0]["text"] == short["choices"][0]["text"]


def test_the_official_openai_client_chats_and_streams(stack: Any) -> None:
    from openai import OpenAI

    client = OpenAI(base_url=f"{stack.http}/v1", api_key="none", timeout=60, max_retries=0)
    messages: Any = [{"role": "user", "content": "You play X."}]
    whole = client.chat.completions.create(model="policy", messages=messages, max_tokens=4)
    assert whole.choices[0].finish_reason in ("stop", "length")
    pieces = list(client.chat.completions.create(model="policy", messages=messages, max_tokens=4, stream=True))
    assert pieces[-1].choices[0].finish_reason in ("stop", "length")


def test_an_error_has_kind_message_and_request_id_and_no_traceback(stack: Any) -> None:
    answer = httpx.post(
        f"{stack.http}/v1/completions", content=b"{not json", headers={"x-request-id": "r1"}, timeout=30
    )
    assert answer.status_code == 400
    assert answer.json()["kind"] == "invalid_request"
    assert answer.json()["request_id"] == "r1"
    assert "Traceback" not in answer.text
    assert httpx.get(f"{stack.http}/no/such/route", timeout=30).status_code == 404


def test_a_seeded_request_repeats_exactly_whatever_else_is_in_the_batch(stack: Any) -> None:
    seeded = Sampling(max_tokens=6, seed=11, ignore_eos=True)
    alone = generate(stack, request("alone", sampling=seeded))[0]
    crowd = generate(stack, *(request(f"c{i}") for i in range(20)), request("again", sampling=seeded))[-1]
    assert (alone.token_ids, alone.logprobs) == (crowd.token_ids, crowd.logprobs)


def test_a_prompt_over_the_model_length_is_refused_by_name(stack: Any) -> None:
    refused = generate(stack, GenerateRequest("long", [5] * 400))[0]
    assert isinstance(refused, PolicyError)
    assert refused.kind == "too_large"


def test_a_version_that_nobody_publishes_ends_at_the_deadline_and_says_so(stack: Any) -> None:
    late = generate(stack, request("late", min_weight_version=10_000, deadline_s=0.5))[0]
    assert isinstance(late, PolicyError)
    assert late.kind == "stale_weights"
    assert "10000" in late.message


def test_the_next_request_after_a_publish_is_answered_by_the_new_weights(stack: Any) -> None:
    from training.evaluation.evaluate import publish_folder

    version = publish_folder(stack.session, stack.session.model)
    answers = generate(stack, *(request(f"v{i}", min_weight_version=version) for i in range(8)))
    assert all(isinstance(answer, GenerateResult) and answer.weight_version >= version for answer in answers)


def test_a_learner_drives_the_weight_sync_of_all_replicas_through_their_handle(stack: Any) -> None:
    """The calls that the NCCL and IPC publishers make, here with a folder as the only part."""
    from ray import serve

    from deployments.weights.push import ServeControl
    from training.evaluation.evaluate import publish_folder

    control = ServeControl(serve.get_deployment_handle("policy", "rayward"))
    members = control.members()
    version = publish_folder(stack.session, stack.session.model)
    control.push(StartPush(version, deadline_s=60.0))
    folder = str(stack.session.store.fetch(version).folder)
    control.push(PushPart(version, {"folder": folder, "version": version}))
    control.push(FinishPush(version))
    answer = generate(stack, request("pushed"))[0]
    assert answer.weight_version == version
    assert control.members() == members, "no replica was replaced"


def test_a_push_that_nobody_started_is_an_error_of_the_caller(stack: Any) -> None:
    from ray import serve

    handle = serve.get_deployment_handle("policy", "rayward")
    with pytest.raises(Exception, match="no push of version 99999 was started here"):
        handle.push.remote(PushPart(99_999, {})).result(timeout_s=30)


def test_an_application_that_finds_no_room_ends_in_an_error_that_says_so(stack: Any) -> None:
    import ray
    from ray import serve

    from configs import serving
    from training.cluster import application, errors

    replicas = {"num_cpus": 1000, "start_deadline_s": 3}
    policies = [{"name": "huge", "model": str(stack.session.model), "replicas": replicas}]
    http = {"root_path": "/huge", "port": 0}
    config = serving.ServeConfig.parse({"name": "huge", "policies": policies, "http": http})
    late = r"not ready within replicas.start_deadline_s \(3 s\)"
    with pytest.raises(errors.ClusterError, match=late), application.application(config):
        pass
    assert "huge" not in serve.status().applications
    assert ray.is_initialized()
