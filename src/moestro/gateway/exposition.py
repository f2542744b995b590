"""`/metrics`: what was counted, in Prometheus' words.

Names are vLLM's where it has one for the same thing, so that charts made for it work here; what it
has no name for begins with `moestro_`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from moestro import __version__
from moestro.engine import EngineState
from moestro.gateway.board import Board
from moestro.gateway.life import Why
from moestro.gateway.meters import Tally

Labels = dict[str, str]


class Exposition:
    """The metrics of one gateway, in a registry of its own."""

    def __init__(self, board: Board) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(board))

    def render(self, accept: str) -> tuple[bytes, str]:
        """(text, content type) in the form that a client accepts."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Collector(Collector):
    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterable[Metric]:
        model = {"model_name": self._board.service.model.name}
        yield from self._load(model)
        yield from self._latencies(model)
        yield from self._tokens(model)
        yield from self._engine(model)
        yield from self._memory(model)
        yield from self._requests(model)

    def _load(self, model: Labels) -> Iterator[Metric]:
        service = self._board.service
        yield _gauge(
            "vllm:num_requests_running", "Requests that are with the engine.", model,
            service.running,
        )  # fmt: skip
        yield _gauge(
            "vllm:num_requests_waiting", "Requests that wait in the gateway for their turn.",
            model, service.queue.waiting,
        )  # fmt: skip
        used = self._board.cache_used
        if used is not None:
            yield _gauge(
                "vllm:kv_cache_usage_perc",
                "Share of the cache that requests in progress hold; 1 is all of it.",
                model,
                used,
            )

    def _latencies(self, model: Labels) -> Iterator[Metric]:
        meters = self._board.meters
        between = "Seconds between two tokens of a stream."
        for name, help_, tally in (
            ("time_to_first_token_seconds", "From arrival to the first event of the answer.",
             meters.first_token),
            ("inter_token_latency_seconds", between, meters.between_tokens),
            ("time_per_output_token_seconds", f"{between} vLLM's older name for it.",
             meters.between_tokens),
            ("request_time_per_output_token_seconds",
             "Mean seconds between two tokens, one value for each request.",
             meters.mean_between_tokens),
            ("e2e_request_latency_seconds", "From arrival to the end of the answer.",
             meters.whole),
            ("request_queue_time_seconds", "Wait in the gateway for an engine.", meters.waited),
            ("request_prefill_time_seconds", "Time in which the engine read the prompt.",
             meters.reading),
            ("request_decode_time_seconds", "Time in which the engine wrote the answer.",
             meters.writing),
            ("request_prompt_tokens", "Tokens of a prompt.", meters.prompt_lengths),
            ("request_generation_tokens", "Tokens of an answer.", meters.answer_lengths),
        ):  # fmt: skip
            yield _histogram(f"vllm:{name}", help_, model, tally)

    def _tokens(self, model: Labels) -> Iterator[Metric]:
        meters = self._board.meters
        for name, help_, value in (
            ("vllm:prompt_tokens", "Tokens of prompts.", meters.prompt_tokens),
            ("vllm:generation_tokens", "Tokens of answers.", meters.written_tokens),
            ("vllm:prefix_cache_queries", "Tokens of prompts, looked up in the prompt cache.",
             meters.prompt_tokens),
            ("vllm:prefix_cache_hits", "Of these, those that it had.", meters.cached_tokens),
            ("vllm:spec_decode_num_draft_tokens", "Drafted tokens.", meters.drafted_tokens),
            ("vllm:spec_decode_num_accepted_tokens", "Drafted tokens that were right.",
             meters.accepted_tokens),
            ("moestro_request_interruptions",
             "Times that a request lost its engine in the middle and went on with the next one.",
             meters.interrupted),
        ):  # fmt: skip
            yield _counter(name, help_, model, value)

    def _engine(self, model: Labels) -> Iterator[Metric]:
        board = self._board
        service, about = board.service, board.about
        yield _gauge(
            "moestro_build_info",
            "What runs here; always 1.",
            {
                **model,
                "version": __version__,
                "engine": str(about.engine.get("id", "")),
                "engine_version": str(about.engine.get("version") or ""),
            },
            1,
        )
        state = GaugeMetricFamily(
            "moestro_engine_state", "1 for the state that the engine is in.",
            labels=[*model, "state"],
        )  # fmt: skip
        now = service.status.state
        for one in EngineState:
            state.add_metric([*model.values(), str(one)], float(one is now))
        yield state
        restarts = CounterMetricFamily(
            "moestro_engine_restarts",
            "Engines that followed another one, by what became of that.",
            labels=[*model, "reason"],
        )
        for reason in Why:
            count = service.restart_reasons.get(reason, 0)
            restarts.add_metric([*model.values(), str(reason)], count)
        yield restarts
        yield _gauge(
            "moestro_uptime_seconds", "Since the gateway began.", model, service.uptime_seconds
        )

    def _memory(self, model: Labels) -> Iterator[Metric]:
        board = self._board
        found = GaugeMetricFamily(
            "moestro_engine_memory_bytes",
            "Memory of the engine's process: of its own (anon), pages of files in RAM (file), "
            "shared, swapped out (swap), and of GPUs by their names in the plan.",
            labels=[*model, "kind"],
        )
        for kind, size in (*board.host_bytes.items(), *board.device_bytes.items()):
            found.add_metric([*model.values(), kind], size)
        yield found
        planned = GaugeMetricFamily(
            "moestro_plan_memory_bytes",
            "What the plan says that it takes, by device and part.",
            labels=[*model, "device", "part"],
        )
        for device in board.about.memory:
            for part in ("weights", "cache", "compute", "other"):
                planned_bytes = device.get(f"{part}_bytes")
                if planned_bytes is not None:
                    name = str(device.get("device", ""))
                    planned.add_metric([*model.values(), name, part], planned_bytes)
        yield planned

    def _requests(self, model: Labels) -> Iterator[Metric]:
        meters = self._board.meters
        ends = CounterMetricFamily(
            "vllm:request_success",
            "Requests by their end: stop, length, abort (the client left), error.",
            labels=[*model, "finished_reason"],
        )
        for reason in ("stop", "length", "abort", "error"):
            ends.add_metric([*model.values(), reason], meters.ends.get(reason, 0))
        yield ends
        failures = CounterMetricFamily(
            "moestro_request_failures",
            "Requests to the engine that failed, by the code of their error.",
            labels=[*model, "code"],
        )
        for code, count in meters.failures.items():
            failures.add_metric([*model.values(), code], count)
        yield failures
        http = CounterMetricFamily(
            "moestro_http_requests",
            "Answers that were begun, by route and status; “other” is no route of ours.",
            labels=["route", "status"],
        )
        for (route, status), count in meters.http.items():
            http.add_metric([route, str(status)], count)
        yield http


def _gauge(name: str, help_: str, labels: Labels, value: float) -> Metric:
    found = GaugeMetricFamily(name, help_, labels=list(labels))
    found.add_metric(list(labels.values()), value)
    return found


def _counter(name: str, help_: str, labels: Labels, value: float) -> Metric:
    found = CounterMetricFamily(name, help_, labels=list(labels))
    found.add_metric(list(labels.values()), value)
    return found


def _histogram(name: str, help_: str, labels: Labels, tally: Tally) -> Metric:
    found = HistogramMetricFamily(name, help_, labels=list(labels))
    found.add_metric(list(labels.values()), tally.buckets(), tally.total)
    return found
