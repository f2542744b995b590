"""Logs captured from real failures, and the sentences they must become."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from moestro.engine.reasons import explain_exit, signal_of

LOGS = Path(__file__).parent / "logs"

CAPTURED = {
    "absurd_count": "has a damaged header: number of tensors is -1",
    "assertion": "stopped on a failed check of its own (llama-context.cpp:2289: GGML_ASSERT(",
    "bad_projector": "The projector not.gguf does not load together with m.gguf",
    "empty_file": "m.gguf is not a GGUF file",
    "micro_batch_below_drafts": "The micro-batch is too small for drafts of this depth",
    "missing_file": "could not be opened: No such file or directory",
    "missing_key": "lacks the metadata key llama.context_length",
    "missing_tensor": "lacks the tensor blk.7.attn_q.weight",
    "mtp_not_in_model": "has no multi-token prediction (MTP) layer",
    "mtp_tensors_missing": "declares a multi-token prediction (MTP) layer but lacks its tensors",
    "newer_version": "a GGUF of version 99, newer than this engine",
    "not_a_gguf": "m.gguf is not a GGUF file",
    "other_byte_order": "a machine of the other byte order",
    "out_of_memory": "Not enough memory for m.gguf: a CPU buffer of 858 GiB could not be had",
    "projector_as_model": "m.gguf is a projector",
    "too_many_threads": "could not start all of its threads: Resource temporarily unavailable",
    "too_many_streams": "at most 256 streams",
    "truncated_data": "m.gguf is cut short",
    "truncated_header": "m.gguf is cut short",
    "unknown_architecture": "the architecture “nosucharch”",
    "version_one": "a GGUF of version 1,",
    "wrong_shape": "the tensor token_embd.weight has not the shape",
}


def test_every_captured_log_has_a_case():
    assert {path.stem for path in LOGS.glob("*.txt")} == set(CAPTURED)


@pytest.mark.parametrize(("name", "expected"), CAPTURED.items())
def test_captured_log(name: str, expected: str):
    first, *log = (LOGS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    reason = explain_exit(log, int(first.removeprefix("exit ")), "m.gguf")
    assert expected in reason.sentence
    assert reason.sentence.endswith(".")
    assert "\n" not in reason.sentence
    assert reason.hint
    # What is explained needs no log beside it.
    assert reason.log_helps is (name == "assertion")


# Lines that this machine cannot produce, as the engine's source writes them.
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "0.00.471.465 E srv    load_model: failed to initialize speculative decoding context: "
            "synthetic acceptance rates must contain 1 values, got 4",
            "The engine could not set up drafting with m.gguf: synthetic acceptance rates must "
            "contain 1 values, got 4.",
        ),
        (
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9000.00 MiB on device 0: "
            "cudaMalloc failed: out of memory",
            "Not enough memory for m.gguf with these settings.",
        ),
        (
            "alloc_tensor_range: failed to allocate CUDA0 buffer of size 1073741824",
            "Not enough memory for m.gguf: a CUDA0 buffer of 1.00 GiB could not be had.",
        ),
        (
            "ggml_cuda: the provided PTX was compiled with an unsupported toolchain",
            "The installed engine build does not fit this graphics card or its driver.",
        ),
        (
            "srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080",
            "The engine could not listen on 127.0.0.1:8080; another program has that port.",
        ),
        (
            "ImportError: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.35' not found",
            "The inference engine cannot be loaded: /lib/x86_64-linux-gnu/libc.so.6: "
            "version `GLIBC_2.35' not found.",
        ),
        (
            "llama_model_load: error loading model: something new",
            "The engine refused m.gguf: something new.",
        ),
    ],
)
def test_single_lines(line: str, expected: str):
    assert explain_exit([line], 1, "m.gguf").sentence == expected


def test_root_cause_wins_over_what_follows_from_it():
    log = [
        "E llama_model_load: error loading model: unknown model architecture: 'x'",
        "E common_fit_params: encountered an error while trying to fit params: failed to load",
        "E srv load_model: failed to load model, 'm.gguf'",
    ]
    assert "architecture “x”" in explain_exit(log, 3, "m.gguf").sentence


def test_a_killed_engine_does_not_blame_its_log():
    log = ["W failed to allocate CUDA0 buffer of size 10, trying again"]
    reason = explain_exit(log, -signal.SIGKILL, "m.gguf")
    assert reason.sentence == "The engine was killed from outside (SIGKILL)."
    assert reason.hint is not None
    assert "out of memory" in reason.hint


@pytest.mark.parametrize(
    ("exit_code", "expected"),
    [
        (-signal.SIGTERM, "ended from outside (SIGTERM)"),
        (-signal.SIGSEGV, "crashed (SIGSEGV)"),
        (-signal.SIGABRT, "crashed (SIGABRT)"),
        (-signal.SIGILL, "instructions that this processor does not have"),
        (0, "ended by itself (exit status 0)"),
        (3, "ended by itself (exit status 3)"),
    ],
)
def test_silent_ends(exit_code: int, expected: str):
    assert expected in explain_exit([], exit_code, "m.gguf").sentence


@pytest.mark.parametrize("exit_code", [3, 1, -signal.SIGSEGV, -signal.SIGABRT])
def test_an_end_without_a_reason_points_at_the_log(exit_code: int):
    reason = explain_exit(["the last line"], exit_code, "m.gguf")
    assert reason.log_helps
    assert reason.hint is not None
    assert "last lines of its log" in reason.hint


@pytest.mark.parametrize("exit_code", [-signal.SIGKILL, -signal.SIGTERM, -signal.SIGILL])
def test_an_end_whose_reason_is_known_does_not(exit_code: int):
    assert not explain_exit(["the last line"], exit_code, "m.gguf").log_helps


def test_signal_of():
    assert signal_of(-9) is signal.SIGKILL
    assert signal_of(3) is None
    assert signal_of(None) is None
    assert signal_of(-64) in (None, signal.SIGRTMAX)
