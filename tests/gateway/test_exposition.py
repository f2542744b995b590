"""`/metrics`, read by Prometheus' own parser after requests that are known."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prometheus_client import REGISTRY
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.conftest import Gateway, until

CHAT = "/v1/chat/completions"
MESSAGES: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}


async def scraped(gateway: Gateway) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Each sample by its name and labels, without `model_name`, which all but two have."""
    async with gateway.http.get("/metrics") as response:
        assert response.status == 200
        assert response.content_type == "text/plain"
        text = await response.text()
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = dict(sample.labels)
            if not sample.name.startswith("moestro_http_"):
                assert labels.pop("model_name") == "stub-model"
            key = (sample.name, frozenset(labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def of(found: dict[Any, float], name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


async def ask(gateway: Gateway, **body: Any) -> bytes:
    async with gateway.http.post(CHAT, json={**MESSAGES, **body}) as response:
        return await response.read()


async def test_nothing_has_happened_yet(gateway: Gateway) -> None:
    found = await scraped(gateway)
    assert of(found, "vllm:num_requests_running") == 0
    assert of(found, "vllm:num_requests_waiting") == 0
    assert of(found, "vllm:generation_tokens_total") == 0
    for reason in ("stop", "length", "abort", "error"):
        assert of(found, "vllm:request_success_total", finished_reason=reason) == 0
    for reason in ("crashed", "killed", "hung", "grew", "replaced"):
        assert of(found, "moestro_engine_restarts_total", reason=reason) == 0
    assert of(found, "moestro_engine_state", state="ready") == 1
    assert of(found, "moestro_engine_state", state="failed") == 0


async def test_values_after_known_requests(gateway: Gateway) -> None:
    for _ in range(2):
        await ask(gateway, stream=True, stub={"tokens": 4})
    await ask(gateway)  # its usage says 2 tokens in, 3 out
    await ask(gateway, stub={"status": 400, "body": json.dumps({"error": {"message": "no"}})})
    async with gateway.http.get("/nowhere") as response:
        await response.read()
    await gateway.http.get("/v1/models/stub-model")
    found = await scraped(gateway)
    assert of(found, "vllm:request_success_total", finished_reason="stop") == 3
    assert of(found, "vllm:request_success_total", finished_reason="error") == 1
    assert of(found, "moestro_request_failures_total", code="engine_failed") == 1
    assert of(found, "vllm:e2e_request_latency_seconds_count") == 3
    assert of(found, "vllm:request_queue_time_seconds_count") == 4
    assert of(found, "vllm:time_to_first_token_seconds_count") == 2
    # The stub's streams say nothing of their length: 4 words and [DONE] are 5 events.
    assert of(found, "vllm:generation_tokens_total") == 2 * 5 + 3
    assert of(found, "vllm:prompt_tokens_total") == 2
    assert of(found, "vllm:request_prompt_tokens_bucket", le="2.0") == 1
    assert of(found, "vllm:request_prompt_tokens_bucket", le="1.0") == 0
    assert of(found, "vllm:inter_token_latency_seconds_count") == of(
        found, "vllm:time_per_output_token_seconds_count"
    )
    assert of(found, "moestro_http_requests_total", route=CHAT, status="200") == 3
    assert of(found, "moestro_http_requests_total", route=CHAT, status="400") == 1
    assert of(found, "moestro_http_requests_total", route="other", status="404") == 1
    assert (
        of(found, "moestro_http_requests_total", route="/v1/models/{name:path}", status="200") == 1
    )


async def test_what_the_engine_says_of_tokens_and_drafts(gateway: Gateway) -> None:
    timings = {
        "cache_n": 2,
        "prompt_n": 10,
        "prompt_ms": 40.0,
        "predicted_n": 6,
        "predicted_ms": 300.0,
        "draft_n": 8,
        "draft_n_accepted": 5,
    }
    body = {"choices": [{"finish_reason": "length"}], "timings": timings}
    await ask(gateway, stub={"status": 200, "body": json.dumps(body)})
    found = await scraped(gateway)
    assert of(found, "vllm:prompt_tokens_total") == 12
    assert of(found, "vllm:generation_tokens_total") == 6
    assert of(found, "vllm:prefix_cache_hits_total") == 2
    assert of(found, "vllm:spec_decode_num_draft_tokens_total") == 8
    assert of(found, "vllm:spec_decode_num_accepted_tokens_total") == 5
    assert of(found, "vllm:request_success_total", finished_reason="length") == 1
    assert of(found, "vllm:request_decode_time_seconds_sum") == pytest.approx(0.3)
    assert of(found, "vllm:request_prefill_time_seconds_bucket", le="0.05") == 1


@pytest.mark.parametrize(
    ("script", "reason"), [("die_after", "killed"), ("crash_after", "crashed")]
)
async def test_a_lost_engine_is_a_restart_with_its_reason(
    gateway: Gateway, script: str, reason: str
) -> None:
    await ask(gateway, stream=True, stub={"tokens": 4, script: 2})
    await until(lambda: gateway.service.restarts == 1)
    found = await scraped(gateway)
    assert of(found, "moestro_engine_restarts_total", reason=reason) == 1
    assert of(found, "moestro_request_interruptions_total") == 1
    assert of(found, "vllm:request_success_total", finished_reason="stop") == 1


async def test_a_replaced_engine_is_one_too(gateway: Gateway) -> None:
    await gateway.service.replace(because="it was loaded again")
    found = await scraped(gateway)
    assert of(found, "moestro_engine_restarts_total", reason="replaced") == 1


async def test_a_client_that_leaves_is_an_abort(gateway: Gateway) -> None:
    async with gateway.http.post(CHAT, json={**MESSAGES, "stream": True, "stub": {
        "tokens": 1000, "pause": 0.01
    }}) as response:  # fmt: skip
        await response.content.readany()
    await until(lambda: gateway.engine.cancelled == 1)
    await until(lambda: not gateway.service.running)
    found = await scraped(gateway)
    assert of(found, "vllm:request_success_total", finished_reason="abort") == 1


async def test_openmetrics_for_who_asks_for_it(gateway: Gateway) -> None:
    accept = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,*/*;q=0.1"
    async with gateway.http.get("/metrics", headers={"accept": accept}) as response:
        assert response.content_type == "application/openmetrics-text"
        text = await response.text()
    assert len(list(openmetrics_families(text))) > 20


async def test_each_gateway_counts_by_itself(gateway: Gateway) -> None:
    await scraped(gateway)
    names = set(REGISTRY._names_to_collectors)
    assert not [name for name in names if name.startswith(("vllm", "moestro"))]
