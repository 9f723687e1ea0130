"""What a client of the running application notices."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
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


CONVERSATION = [
    {"role": "system", "content": "Play well: é, 中文, {}."},
    {"role": "user", "content": "You play X."},
    {"role": "assistant", "content": "5"},
    {"role": "user", "content": "And now?"},
]


@pytest.mark.parametrize(
    ("path", "asked"),
    [("/v1/completions", {"prompt": "You play X."}), ("/v1/chat/completions", {"messages": CONVERSATION})],
)
def test_the_short_way_and_vllms_own_route_say_the_same_whole_or_streamed(
    stack: Any, path: str, asked: dict[str, Any]
) -> None:
    body = {"model": "policy", "max_tokens": 24, "temperature": 0, "ignore_eos": True, **asked}
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    not_plain = {"skip_special_tokens": True}  # the default, but not a field of the short way
    with httpx.Client(base_url=stack.http, timeout=60) as client:
        wholes = [client.post(path, json={**body, **more}).json() for more in ({}, not_plain)]
        streams = [client.post(path, json={**body, **streamed, **more}) for more in ({}, not_plain)]
    assert ["weight_version" in whole for whole in wholes] == [True, False], "one went each way"
    said = [_said(whole["choices"][0]) for whole in wholes]
    said += ["".join(_said(choice) for event in _events(s) for choice in event["choices"]) for s in streams]
    assert said == said[:1] * 4
    assert said[0]
    counts = [whole["usage"] for whole in wholes] + [_events(stream)[-1]["usage"] for stream in streams]
    assert [(count["prompt_tokens"], count["completion_tokens"]) for count in counts] == [
        (counts[0]["prompt_tokens"], 24)
    ] * 4
    ends = [whole["choices"][0]["finish_reason"] for whole in wholes]
    ends += [_events(stream)[-2]["choices"][0]["finish_reason"] for stream in streams]
    assert ends == ["length"] * 4
    assert {stream.headers["content-type"] for stream in streams} == {"text/event-stream; charset=utf-8"}


def test_a_chat_that_names_no_bound_gets_what_its_prompt_leaves(stack: Any) -> None:
    """`max_model_len` is 256: the default bound of half of it does not fit beside this prompt."""
    messages = [{"role": "user", "content": "You play X. " * 40}]
    body = {"messages": messages, "ignore_eos": True}
    answer = httpx.post(f"{stack.http}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    usage = answer.json()["usage"]
    assert usage["prompt_tokens"] > 128
    assert usage["total_tokens"] == 256


def _events(answer: httpx.Response) -> list[dict[str, Any]]:
    *events, end = answer.text.removesuffix("\n\n").split("\n\n")
    assert end == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events]


def _said(choice: dict[str, Any]) -> str:
    message = choice.get("message") or choice.get("delta") or {}
    return str(choice.get("text") or message.get("content") or "")


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


def status_of(stack: Any) -> dict[str, Any]:
    return httpx.get(f"{stack.http}/health", timeout=30).json()["policies"]["policy"]


async def until_unfinished(stack: Any, count: int) -> None:
    """Waits until the engine has so many requests that are neither answered nor aborted; less long than their deadline,
    which ends them, too."""
    async with asyncio.timeout(12):
        while (await asyncio.to_thread(status_of, stack))["unfinished_requests"] != count:  # noqa: ASYNC110  # there is no event across processes
            await asyncio.sleep(0.05)


@contextmanager
def standing_still() -> Iterator[Callable[[], None]]:
    """The engine is paused, as in a push of weights, which is aborted at the end or by what is yielded."""
    from ray import serve

    from deployments.weights.push import ServeControl
    from deployments.weights.push_steps import AbortPush, StartPush

    control, version, paused = ServeControl(serve.get_deployment_handle("policy", "rayward")), 1_000_000, True

    def go_on() -> None:
        nonlocal paused
        if paused:
            paused = False
            control.push(AbortPush(version))

    control.push(StartPush(version, deadline_s=120))
    try:
        yield go_on
    finally:
        go_on()


def left_in_the_middle(stack: Any, waiting: Coroutine[Any, Any, Any]) -> None:
    """Has the engine work on a request whose client leaves. The engine stands still meanwhile (as in a push of
    weights), so that the request can end in no other way than by an abort."""

    async def run() -> None:
        task = asyncio.ensure_future(waiting)
        await until_unfinished(stack, 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until_unfinished(stack, 0)

    with standing_still():
        asyncio.run(run())


CHAT = {"messages": [{"role": "user", "content": "You play X."}], "max_tokens": 64, "ignore_eos": True}
PLAIN = {"prompt": "You play X.", "max_tokens": 64, "ignore_eos": True}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", PLAIN),
        ("/v1/chat/completions", {**CHAT, "stream": True}),
        ("/v1/completions", {**PLAIN, "stop": "."}),
        ("/v1/chat/completions", {**CHAT, "stream": True, "stop": "."}),
    ],
    ids=["plain", "stream", "forwarded", "forwarded stream"],
)
def test_generation_ends_when_its_client_leaves(stack: Any, path: str, body: dict[str, Any]) -> None:
    async def post() -> None:
        async with httpx.AsyncClient(timeout=60) as client:
            await client.post(f"{stack.http}{path}", json=body)

    left_in_the_middle(stack, post())


def test_generation_ends_when_a_rollout_cancels_its_request(stack: Any) -> None:
    from ray import serve

    from deployments.client.handle import ServeGenerate

    async def rollout() -> None:
        call = ServeGenerate(serve.get_deployment_handle("policy", "rayward"))
        await call(request("left", sampling=Sampling(max_tokens=64, ignore_eos=True)))

    left_in_the_middle(stack, rollout())


def test_one_of_a_batch_can_leave_without_its_neighbour(stack: Any) -> None:
    from ray import serve

    from deployments.client.handle import ServeGenerate

    async def run(go_on: Callable[[], None]) -> Any:
        call = ServeGenerate(serve.get_deployment_handle("policy", "rayward"), window_s=0.2)
        leaver, stayer = (asyncio.ensure_future(call(request(name))) for name in ("leaver", "stayer"))
        await until_unfinished(stack, 2)
        leaver.cancel()
        await until_unfinished(stack, 1)
        await asyncio.to_thread(go_on)
        return await stayer

    with standing_still() as go_on:
        assert isinstance(asyncio.run(run(go_on)), GenerateResult)


def test_a_request_that_waited_past_its_deadline_is_refused_by_the_replica(stack: Any) -> None:
    from ray import serve

    from deployments.client.handle import ServeGenerate

    async def run() -> None:
        call = ServeGenerate(serve.get_deployment_handle("policy", "rayward"), clock=lambda: time.time() - 1000)
        await call(request("late"))

    with pytest.raises(PolicyError, match="after its deadline"):
        asyncio.run(run())


@pytest.mark.parametrize("field", [{"ignore_eos": None}, {"temperature": "1"}, {"seed": 1.5}, {"model": ["a"]}])
def test_a_wrong_type_is_refused_on_every_way_and_the_engine_goes_on(stack: Any, field: dict[str, Any]) -> None:
    ways = [("/v1/completions", PLAIN), ("/v1/completions", {**PLAIN, "stop": "."}), ("/v1/chat/completions", CHAT)]
    for path, body in ways:
        answer = httpx.post(f"{stack.http}{path}", json={**body, **field}, timeout=60)
        assert (answer.status_code, answer.json()["kind"]) == (400, "invalid_request")
        assert next(iter(field)) in answer.json()["message"]
    assert httpx.post(f"{stack.http}/v1/completions", json=PLAIN, timeout=60).status_code == 200


def test_bodies_up_to_the_promised_limit_are_judged_by_what_they_say_and_harm_no_neighbour(stack: Any) -> None:
    large = "You play X. " * 500_000  # 6 MB: over gRPC's own limit, far over the model's length
    messages = [{"role": "user", "content": large}]

    async def run() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=60, base_url=stack.http) as client:
            short = [client.post("/v1/completions", json=PLAIN) for _ in range(10)]
            long = [client.post("/v1/completions", json={**PLAIN, "prompt": large}) for _ in range(2)]
            return list(
                await asyncio.gather(*short, *long, client.post("/v1/chat/completions", json={"messages": messages}))
            )

    answers = asyncio.run(run())
    assert [answer.status_code for answer in answers[:10]] == [200] * 10
    assert [answer.status_code for answer in answers[10:]] == [413, 413, 413]
    assert "characters" in answers[10].json()["message"]


def test_a_body_over_the_limit_is_413(stack: Any) -> None:
    answer = httpx.post(f"{stack.http}/v1/completions", content=b"x" * (32 * 1024 * 1024 + 1), timeout=60)
    assert (answer.status_code, answer.json()["kind"]) == (413, "too_large")


def test_every_answer_says_its_weight_version_and_a_request_may_ask_for_one(stack: Any) -> None:
    from training.evaluation.evaluate import publish_folder

    for path, body in (("/v1/completions", PLAIN), ("/v1/chat/completions", CHAT), ("/tokenize", {"prompt": "a"})):
        version = publish_folder(stack.session, stack.session.model)
        headers = {"x-min-weight-version": str(version)}
        answer = httpx.post(f"{stack.http}{path}", json=body, headers=headers, timeout=60)
        assert answer.status_code == 200
        assert int(answer.headers["x-weight-version"]) >= version


@pytest.mark.parametrize("body", [{**CHAT, "max_tokens": 2000}, {**CHAT, "n": 100}])
def test_the_token_bound_holds_for_chat(stack: Any, body: dict[str, Any]) -> None:
    answer = httpx.post(f"{stack.http}/v1/chat/completions", json=body, timeout=60)
    assert (answer.status_code, answer.json()["kind"]) == (413, "too_large")


def test_what_balancers_and_clients_of_openai_probe_is_there(stack: Any) -> None:
    assert httpx.head(f"{stack.http}/health", timeout=30).status_code == 200
    assert httpx.get(f"{stack.http}/v1/models/policy", timeout=30).json()["id"] == "policy"
    assert httpx.get(f"{stack.http}/v1/models/other", timeout=30).json()["kind"] == "not_found"
    assert httpx.delete(f"{stack.http}/v1/completions", timeout=30).json()["kind"] == "method_not_allowed"
    assert httpx.post(f"{stack.http}/health", timeout=30).json()["kind"] == "method_not_allowed"


def test_vllms_own_refusal_has_the_one_body(stack: Any) -> None:
    answer = httpx.post(f"{stack.http}/v1/chat/completions", json={"messages": "none"}, timeout=30)
    assert answer.status_code == 400
    assert set(answer.json()) == {"kind", "message", "detail", "request_id", "error"}


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "move"}}])
def test_tools_may_be_offered_without_configuration(stack: Any, choice: Any) -> None:
    parameters = {"type": "object", "properties": {"cell": {"type": "integer", "enum": [1, 2]}}, "required": ["cell"]}
    tool = {"type": "function", "function": {"name": "move", "parameters": parameters}}
    body = {**CHAT, "ignore_eos": False, "tools": [tool], "tool_choice": choice}
    answer = httpx.post(f"{stack.http}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    message = answer.json()["choices"][0]["message"]
    # a random model may write white space into its JSON until the bound cuts it off: then the call stays text
    asked = message.get("tool_calls") or message["content"].startswith("<tool_call>")
    assert choice == "auto" or asked, message


def test_ray_and_the_balancer_listen_on_loopback_alone(stack: Any) -> None:
    """The control store, the node's manager and agents, and HAProxy. Not looked at: the ports between Serve's replicas
    and of torch's rendezvous, whose address Ray Serve and torch do not let anybody choose."""
    import psutil

    looked_at = [
        process
        for process in psutil.Process().children(recursive=True)
        if any(part in process.name().lower() for part in ("gcs_server", "raylet", "agent", "haproxy"))
    ]
    everywhere = [
        (process.name(), connection.laddr.ip, connection.laddr.port)
        for process in looked_at
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.ip in ("0.0.0.0", "::")
    ]
    assert any(process.name() == "gcs_server" for process in looked_at), "no Ray of ours: the test says nothing"
    assert everywhere == []
