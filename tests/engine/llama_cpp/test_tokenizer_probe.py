"""The engine's tokenizer of real, tiny and imaginary models."""

from __future__ import annotations

import ctypes
import struct
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from moestro.demo import model_path
from moestro.engine.llama_cpp import tokenizer_probe
from moestro.engine.llama_cpp.std_string import CXX11, OLD, std_string
from moestro.engine.llama_cpp.tokenizer_probe import TEXTS, TokenizerProbe, probe_tokenizer
from moestro.engine.tokenizer import AnswerEnd
from moestro.errors import EngineStartFailed, ModelUnsupported
from moestro.model import read_model
from tests.engine.llama_cpp.processes import ends_within
from tests.rewriting import Gguf
from tests.shapes import PUBLISHED, write_header, write_split
from tests.shapes.families import qwen3moe
from tests.smollm import smollm
from tests.tiny_models import CHATML, write_tiny

MARKS = ("<|im_start|>", "<|im_end|>", "<|turn|>", "[INST]")


def test_the_demo_model() -> None:
    with TokenizerProbe(read_model(model_path())) as probe:
        assert (probe.bos, probe.eos) == ("<|endoftext|>", "<|im_end|>")
        report = probe.report(MARKS, "<|im_end|>\n<|im_start|>user\n")
        assert probe.judge(CHATML) == "accepted"
        assert probe.judge("{% if messages %}") == "refused"
        assert probe.judge("{{ 'a' | wordwrap(2) }}") == "refused"
    assert report.vocabulary == 2048
    assert report.ends == ("<|endoftext|>", "<|im_end|>")
    assert report.single == {
        "<|im_start|>": True, "<|im_end|>": True, "<|turn|>": False, "[INST]": False,
    }  # fmt: skip
    assert report.listed == {"<|im_start|>", "<|im_end|>"}
    assert report.barred
    assert report.answer_end == AnswerEnd("<|im_end|>", special=True, ends=True)
    assert report.pre_known
    assert [trip.text for trip in report.round_trips] == list(TEXTS.values())
    assert all(trip.text == trip.came_back and trip.tokens for trip in report.round_trips)


def test_a_real_model() -> None:
    report = probe_tokenizer(read_model(smollm()), MARKS, "<|im_end|>\n")
    assert report.vocabulary == 49152
    assert report.eos == "<|im_end|>"
    assert all(trip.text == trip.came_back for trip in report.round_trips)
    plain = report.round_trips[0]
    assert plain.tokens < len(plain.text) / 3


def test_a_header_of_386_gib_is_enough(tmp_path: Path) -> None:
    path = write_header(PUBLISHED["DeepSeek-V3"](), tmp_path / "v3.gguf", vocab_tokens=600)
    spec = read_model(path)
    assert spec.tensor_bytes > 380 << 30
    assert probe_tokenizer(spec).vocabulary == 600


def test_split_models(tmp_path: Path) -> None:
    shape = qwen3moe(layers=2, hidden=256, heads=4, kv_heads=2, head_dim=64, ffn=256,
                     expert_ffn=256, experts=8, used=2, vocab=512)  # fmt: skip
    first, *_ = write_split(shape, tmp_path, "model", 2)
    assert probe_tokenizer(read_model(first)).vocabulary == 512


def sentencepiece(path: Path) -> Path:
    """A vocabulary of the Llama 2 kind: bytes, letters, a blank that is put in front."""
    file = Gguf.open(write_tiny("llama", path))
    letters = [chr(code) for code in range(33, 84)]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters]
    pieces += [f"<extra_{index}>" for index in range(320 - len(pieces))]
    pieces = pieces[:320]
    kinds = [2, 3, 3, *[6] * 256, *[1] * (320 - 259)]
    file.set("tokenizer.ggml.model", "llama")
    file.set("tokenizer.ggml.pre", "default")
    file.set("tokenizer.ggml.tokens", pieces)
    file.set("tokenizer.ggml.token_type", kinds)
    file.set("tokenizer.ggml.scores", [-float(index) for index in range(320)])
    file.set("tokenizer.ggml.bos_token_id", 1)
    file.set("tokenizer.ggml.eos_token_id", 2)
    file.set("tokenizer.ggml.padding_token_id", 0)
    file.drop("tokenizer.ggml.merges")
    return file.write(path / "spm.gguf")


def test_a_blank_that_sentencepiece_adds_is_no_difference(tmp_path: Path) -> None:
    report = probe_tokenizer(read_model(sentencepiece(tmp_path)), ("</s>", "[INST]"), "</s>[INST] ")
    assert [t for t in report.round_trips if t.text != t.came_back] == []
    assert report.single == {"</s>": True, "[INST]": False}
    assert report.listed == {"</s>"}
    assert not report.barred
    assert report.answer_end == AnswerEnd("</s>", special=True, ends=True)


def test_a_vocabulary_that_the_engine_refuses(tmp_path: Path) -> None:
    file = Gguf.open(write_tiny("llama", tmp_path))
    file.set("tokenizer.ggml.pre", "of-another-age")
    spec = read_model(file.write(tmp_path / "refused.gguf"))
    with pytest.raises(EngineStartFailed, match="of-another-age") as caught:
        probe_tokenizer(spec)
    assert caught.value.code == "engine-start-failed"


def test_only_files_of_this_machine(tmp_path: Path) -> None:
    spec = read_model(write_tiny("llama", tmp_path))
    far = replace(spec, files=(replace(spec.files[0], location="http://example.org/a.gguf"),))
    with pytest.raises(ModelUnsupported, match="this machine"):
        probe_tokenizer(far)


def test_a_probe_that_hangs_is_ended(tmp_path: Path) -> None:
    spec = read_model(write_tiny("llama", tmp_path))
    with (
        pytest.raises(EngineStartFailed, match="still busy") as caught,
        TokenizerProbe(spec, timeout_seconds=0.001),
    ):
        pass
    assert caught.value.code == tokenizer_probe.UNAVAILABLE


def test_a_child_that_dies_is_an_error(tmp_path: Path) -> None:
    with TokenizerProbe(read_model(write_tiny("llama", tmp_path))) as probe:
        plain = probe.report((), "\n\nUser: ")
        assert plain.answer_end == AnswerEnd("U", special=False, ends=False)
        probe.kill()
        with pytest.raises(EngineStartFailed, match="SIGKILL"):
            probe.report()


AT_START = "{% if messages[0].content == 'test' %}"
CALLS_ITSELF = "{% macro f(x) %}{{ f(x) }}{% endmacro %}" + AT_START + "{{ f(1) }}{% endif %}"
COUNTS = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
DOUBLES = (
    "{% set n = namespace(s='aaaaaaaa' * 65536) %}{% for a in range(60) %}"
    "{% set n.s = n.s ~ n.s %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "seconds", "verdict"),
    [
        (CALLS_ITSELF + CHATML, 60.0, "crashed"),
        (AT_START + COUNTS + "{% endif %}" + CHATML, 0.5, "endless"),
        (AT_START + DOUBLES + "{% endif %}" + CHATML, 60.0, "endless"),
    ],
    ids=["crash", "time", "memory"],
)
def test_templates_that_take_the_engine_down(
    template: str, seconds: float, verdict: str, tmp_path: Path
) -> None:
    with TokenizerProbe(read_model(write_tiny("llama", tmp_path))) as probe:
        assert probe.judge(template, timeout_seconds=seconds) == verdict


def test_another_thread_may_end_it(tmp_path: Path) -> None:
    spec = read_model(write_tiny("llama", tmp_path))
    with TokenizerProbe(spec) as probe:
        clock = threading.Timer(0.3, probe.kill)
        clock.start()
        # That it was ended says nothing of the template.
        assert probe.judge(COUNTS, timeout_seconds=60) is None
        clock.join()
    early = TokenizerProbe(spec)
    early.kill()
    with pytest.raises(EngineStartFailed, match="SIGKILL"), early:
        pass


OWNER = """
import sys, threading
from pathlib import Path
from moestro.engine.llama_cpp.tokenizer_probe import TokenizerProbe
from moestro.model import read_model
with TokenizerProbe(read_model(Path(sys.argv[1]))) as probe:
    print(probe._process.pid, flush=True)
    probe.judge(sys.argv[2], timeout_seconds=60)
"""


def test_a_busy_child_dies_with_its_owner(tmp_path: Path) -> None:
    model = write_tiny("llama", tmp_path)
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(model), COUNTS], stdout=subprocess.PIPE
    )
    with owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        at_rest = psutil.Process(child).cpu_times().user
        while psutil.Process(child).cpu_times().user < at_rest + 0.3:
            time.sleep(0.02)  # until it is in the engine, where no Python runs
        owner.kill()
    assert ends_within(child, 10)


def test_strings_lie_as_cpp_expects_them() -> None:
    for layout in (CXX11, OLD):
        address, _alive = std_string(b"abc", layout)
        assert address.value is not None
        (characters,) = struct.unpack("P", ctypes.string_at(address.value, 8))
        assert ctypes.string_at(characters) == b"abc"
        at = address.value + 8 if layout == CXX11 else characters - 24
        assert struct.unpack("n", ctypes.string_at(at, 8)) == (3,)
