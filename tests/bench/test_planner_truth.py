"""How the benchmarks of the planner measure: their parsers, their statistics and their models."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from bench.planner.cases import DEVELOPMENT, MODELS, SHAPES, TEST, Case
from bench.planner.completions import Completion, _read
from bench.planner.memory_truth import buffers_of
from bench.planner.random_models import is_tied, recipe, write_random
from bench.planner.speed_truth import summary, writing_of

from moestro.engine.llama_cpp.dry_run import engine_counts
from moestro.model import read_model
from tests.tiny_models import TINY

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_tokens_get_the_time_of_the_read_that_completed_them() -> None:
    events = (
        b'data: {"tokens": [1]}\n\n',
        b":\n\n",
        b'data: {"tokens": [2]}\n\ndata: {"tokens": [3]}\n\n',
        b'data: {"stop": true, "tokens": [], "timings": {"predicted_n": 3, "prompt_n": 8, '
        b'"prompt_ms": 4}, "generation_settings": {"top_k": 40}}\n\n',
    )
    stream = HEAD + b"".join(map(chunk, events)) + b"0\r\n\r\n"
    # A read may end anywhere, here inside the first event and inside the third.
    cuts = [len(HEAD) + 9, len(HEAD) + len(chunk(events[0]) + chunk(events[1])) + 12, len(stream)]
    pieces = [(float(at), stream[a:b]) for at, (a, b) in enumerate(pairwise([0, *cuts]))]
    done = _read(0.0, pieces, 3)
    assert done.token_times == (1.0, 2.0, 2.0)
    assert done.prefill_tokens_per_second == 2000
    assert done.settings == {"top_k": 40}
    with pytest.raises(SystemExit, match="wrote 3 tokens, not 4"):
        _read(0.0, pieces, 4)


def test_a_refusal_is_shown() -> None:
    with pytest.raises(SystemExit, match="too long"):
        _read(0.0, [(0.0, b"HTTP/1.1 400 Bad Request\r\n\r\ntoo long")], 1)


def stream(*times: float) -> Completion:
    return Completion(0.0, times, {"predicted_per_second": 1.0}, {})


def test_steps_count_only_while_all_streams_write() -> None:
    early = stream(1.0, 2.0, 2.1, 2.2, 2.3)
    late = stream(2.0, 2.1, 2.2, 2.3, 2.5)
    written = writing_of(Case("x", depth=100, streams=2), [early, late])
    assert written["steps"] == 3
    assert written["step_ms"][0] == pytest.approx(100)
    assert written["step_ms"][-1] == pytest.approx(100)
    assert written["tokens_per_second"] == pytest.approx(6 / 0.3, rel=1e-3)
    assert written["depth"] == 103


def test_calm_is_not_moved_by_disturbance() -> None:
    """Neither by disturbed steps in a round, nor by a round that lost half of the processors."""

    def round_(steps: list[float], stolen: float) -> dict[str, Any]:
        decode = {"step_ms": sorted(steps), "depth": 10, "stolen": stolen, "others": 0.0}
        return {"prefill": [], "decode": decode}

    quiet, rough, lost = [100.0] * 21, [100.0] * 5 + [500.0] * 16, [400.0] * 21
    rounds = [round_(quiet, 0.0), round_(rough, 0.08), round_(lost, 0.5)]
    decode = summary(Case("x"), rounds)["decode"]
    assert decode["calm"] == 10
    assert decode["noise"] == 0
    assert decode["calm_each"] == [10, 10]
    assert decode["typical"] == 2.5
    assert summary(Case("x"), rounds[2:])["decode"]["calm"] is None


def test_buffers_belong_to_their_contexts() -> None:
    # Lines as release b11549 prints them, shortened.
    log = """
0.00.01 I load_tensors:   CPU_Mapped model buffer size =    10.50 MiB
0.00.01 I load_tensors:   CPU_REPACK model buffer size =     2.00 MiB
0.00.02 I llama_context: constructing llama_context
0.00.02 I llama_context:        CPU  output buffer size =     1.00 MiB
0.00.02 I llama_kv_cache:        CPU KV buffer size =     4.00 MiB
0.00.02 I llama_kv_cache:        CPU KV buffer size =     4.00 MiB
0.00.02 I llama_memory_recurrent:        CPU RS buffer size =     0.25 MiB
0.00.03 I sched_reserve:        CPU compute buffer size =     7.00 MiB
0.00.03 I sched_reserve: graph: nodes = 260, splits = 1, input objects = 4, input tensors = 10
0.00.04 I llama_context: constructing llama_context
0.00.04 I sched_reserve:        CPU compute buffer size =     3.50 MiB
0.00.04 I sched_reserve: graph: nodes = 52, splits = 1, input objects = 4, input tensors = 7
0.00.05 I sched_reserve:        CPU compute buffer size =     3.00 MiB
0.00.05 I sched_reserve: graph: nodes = 73, splits = 1, input objects = 5, input tensors = 7
0.00.06 I sched_reserve:        CPU compute buffer size =     8.00 MiB
0.00.06 I sched_reserve: graph: nodes = 259, splits = 1, input objects = 4, input tensors = 10
"""
    buffers = buffers_of(log)
    mib = {(b["owner"], b["kind"], b["device"]): b["bytes"] / 2**20 for b in buffers}
    assert sum(b["bytes"] for b in buffers) == (10.5 + 2 + 1 + 4 + 4 + 0.25 + 8 + 3) * 2**20
    assert mib["model", "model", "CPU_REPACK"] == 2
    assert mib["context 0", "compute", "CPU"] == 8
    assert mib["context 1", "compute", "CPU"] == 3


def test_a_random_model_is_one_that_the_engine_knows(tmp_path: Path) -> None:
    shape = TINY["qwen3moe"]()
    path = write_random(shape, recipe("Q8_0", shape), tmp_path / "x.gguf")
    ours, theirs = read_model(path), engine_counts(path)
    assert (ours.tensor_bytes, ours.parameters) == (theirs.size_bytes, theirs.parameters)
    assert {tensor.type for tensor in ours.tensors} == {"F32", "Q8_0"}


def test_recipes_are_those_of_the_quantizer() -> None:
    shape = SHAPES["mixtral-1.5b"]()
    types = recipe("Q4_K_M", shape)
    assert types("blk.0.ffn_down_exps.weight", (3584, 1024, 8)) == "Q6_K"
    assert types("blk.3.ffn_down_exps.weight", (3584, 1024, 8)) == "Q4_K"
    assert types("blk.3.attn_v.weight", (1024, 512)) == "Q8_0"  # eight experts share it
    assert types("blk.3.attn_output.weight", (1024, 1024)) == "Q5_K"
    assert types("blk.3.ffn_gate_inp.weight", (1024, 8)) == "F32"
    assert types("output.weight", (1024, 32000)) == "Q6_K"
    assert types("token_embd.weight", (1024, 32000)) == "Q4_K"
    odd = recipe("Q4_K_M", SHAPES["smollm-0.1b"]())
    assert odd("blk.3.attn_q.weight", (576, 576)) == "Q5_0"
    assert (
        odd("token_embd.weight", (576, 49152)) == "Q8_0"
    )  # tied: the head's type, which falls back


def test_development_shows_nothing_of_the_test() -> None:
    names = [case.name for case in (*TEST, *DEVELOPMENT)]
    assert len(names) == len(set(names))
    used = {MODELS[case.model].shape_name for case in TEST}
    assert used.isdisjoint(MODELS[case.model].shape_name for case in DEVELOPMENT)
    shapes = {name: [tensor.dims for tensor in SHAPES[name]().tensors] for name in SHAPES}
    for name in used:
        assert all(shapes[name] != shapes[other] for other in shapes if other != name)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_as_large_as_their_names_say(name: str) -> None:
    billions = float(name.rsplit("-", 1)[1].removesuffix("b"))
    assert SHAPES[name]().parameters / 1e9 == pytest.approx(billions, rel=0.2, abs=0.05)


def test_a_case_asks_for_room_enough() -> None:
    for case in (*TEST, *DEVELOPMENT):
        needed = max(case.prompt, case.depth + case.lead + case.answer)
        assert case.settings.context > needed
    assert replace(TEST[0], ubatch=64).name != TEST[0].name


def test_tied_heads_are_seen() -> None:
    assert is_tied(SHAPES["smollm-0.1b"]())
    assert not is_tied(SHAPES["mixtral-1.5b"]())
