from __future__ import annotations

import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moestro.demo import model_path
from moestro.errors import ModelUnsupported, NotAPlan
from moestro.export.deployment import Deployment
from moestro.export.flags import flags, server_arguments, unexpressed
from moestro.export.target import Target
from moestro.export.targets import TARGETS
from moestro.model import read_model
from moestro.planning.settings import INT_MAX
from tests.export.changes import EVERY, base, changed
from tests.export.plans import GOLDEN, deployment, with_file, with_settings
from tests.export.real_parser import case_of, side_by_side
from tests.shapes import PUBLISHED, write_header

UNLIKE = {
    # The embedded engine listens for its owner alone, at an address and with a key of its own.
    "port",
    "api_keys",
    # The parser adds to "none", which does nothing; the type itself loads the MTP layers.
    "speculative.types",
    "load_mtp",
    # Without a key the exported server must not answer web pages.
    "cors_origins",
    "cors_origins_explicit",
}


def value_of(arguments: list[str], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


@EVERY
def test_no_setting_is_forgotten(setting: str) -> None:
    """The engine is not a flag: it is the program, and the dialect."""
    other = changed(setting)
    assert flags(other, family=other.engine.family) != flags(base())


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Deployment]:
    """Plans whose model can be read, and each setting on its own at another value."""
    folder = tmp_path_factory.mktemp("headers")
    deep = write_header(PUBLISHED["DeepSeek-V3"](), folder / "deep.gguf", vocab_tokens=256)
    found = {name: with_file(deployment(name), str(model_path())) for name in GOLDEN}
    found["experts-on-host"] = with_file(deployment("experts-on-host"), str(deep))
    demo = found["mtp"]
    expert_blocks = read_model(model_path()).expert_blocks
    model = replace(demo.plan.model, expert_blocks=expert_blocks)
    demo = replace(demo, plan=replace(demo.plan, model=model))
    for change in VARIED:
        found[str(change)] = with_settings(demo, replace(demo.settings, **change))
    return found


VARIED: tuple[dict[str, Any], ...] = (
    {"context": 300, "parallel": 3, "ubatch": 64, "threads": 3},
    {"cache_type_k": "q8_0", "cache_type_v": "q4_0", "flash_attention": "on", "unified": True},
    {"cache_type_k": "f32", "cache_type_v": "bf16", "flash_attention": "off"},
    {"cache_type_k": "iq4_nl", "cache_type_v": "q5_1", "cache_on_host": True},
    {"cache_type_k": "q4_1", "cache_type_v": "q5_0", "gpu_layers": 3, "tensor_split": (1 / 3, 0.7)},
    {"cpu_expert_layers": 2, "expert_cache_bytes": 5 << 20, "mtp_depth": 3},
    {"prompt_cache_bytes": 0, "context_checkpoints": 0, "mtp_depth": 0},
    {"prompt_cache_bytes": 1, "context_checkpoints": 7, "tensor_split": (0.0, 1e-3)},
    {"threads_batch": 2, "batch": 900, "repack": False, "load_mode": "none", "ngram": "map-k"},
    {"load_mode": "mlock", "ngram": "mod", "mtp_depth": 3, "mtp_p_min": 0.3},
    {"load_mode": "mmap", "ngram": "cache", "batch": 1},
)


def test_the_engines_own_parser_makes_of_them_what_the_embedded_engine_gets(
    cases: dict[str, Deployment],
) -> None:
    """Every parameter that has a plain value is compared, set or not: two hundred and more."""
    answers = side_by_side([case_of(case, server_arguments(case)) for case in cases.values()])
    for (name, case), (parsed, embedded) in zip(cases.items(), answers, strict=True):
        assert len(parsed) > 200
        unlike = set(UNLIKE)
        if case.gpus == 0:
            unlike |= {"devices", "mmproj_use_gpu", "mmproj_device"}  # none of either, said and not
        if name == "experts-on-host":
            unlike.add("tensor_buft_overrides")
        differing = {
            key for key in parsed.keys() | embedded.keys() if _unlike(key, parsed, embedded)
        }
        assert differing <= unlike, (
            name,
            {key: (parsed.get(key), embedded.get(key)) for key in differing - unlike},
        )
        kinds = _kinds(case)
        assert parsed["speculative.types"] == ["0", *kinds]
        assert embedded["speculative.types"] == (kinds or ["0"])
        assert parsed["port"] == case.port
        assert parsed["cors_origins"] == "localhost"
    parsed, embedded = dict(zip(cases, answers, strict=True))["experts-on-host"]
    tensors = [
        tensor.name for tensor in read_model(Path(cases["experts-on-host"].model_path)).tensors
    ]
    moved = _matching(parsed["tensor_buft_overrides"], tensors)
    assert moved == _matching(embedded["tensor_buft_overrides"], tensors)
    assert {name.split(".")[1] for name in moved} == {str(block) for block in range(3, 61)}


def _kinds(case: Deployment) -> list[str]:
    """`enum common_speculative_type` by number, in the order in which drafts are tried."""
    ngrams = {"simple": "6", "map-k": "7", "map-k4v": "8", "mod": "9", "cache": "10"}
    found = [] if case.settings.ngram == "off" else [ngrams[case.settings.ngram]]
    return [*found, "3"] if case.settings.mtp_depth else found


def _unlike(key: str, parsed: dict[str, Any], embedded: dict[str, Any]) -> bool:
    return bool(parsed.get(key) != embedded.get(key))


def _matching(overrides: str, tensors: list[str]) -> list[str]:
    rules = [rule.rpartition("=")[0] for rule in overrides.split(",")]
    return [name for name in tensors if any(re.search(rule, name) for rule in rules)]


def test_expert_blocks_are_counted_over_the_dense_ones() -> None:
    """`--n-cpu-moe` counts blocks of any kind: five with experts end at block 7."""
    five = deployment("experts-on-host")
    five = with_settings(five, replace(five.settings, cpu_expert_layers=5))
    assert value_of(server_arguments(five), "--n-cpu-moe") == "8"
    more_than_there_are = with_settings(five, replace(five.settings, cpu_expert_layers=1000))
    assert value_of(server_arguments(more_than_there_are), "--n-cpu-moe") == "62"


def test_without_a_gpu_nothing_is_said_of_gpus() -> None:
    case = deployment("demo-cpu")
    settings = replace(
        case.settings, cpu_expert_layers=2, tensor_split=(1.0, 2.0), expert_cache_bytes=5 << 20
    )
    arguments = server_arguments(with_settings(case, settings))
    assert value_of(arguments, "--device") == "none"
    assert not {"--n-cpu-moe", "--tensor-split", "--moe-cache-mib"} & set(arguments)
    assert unexpressed(with_settings(case, settings)) == ()


def test_all_layers() -> None:
    case = with_settings(base(), replace(base().settings, gpu_layers=None))
    assert value_of(server_arguments(case), "--gpu-layers") == "all"


def test_the_caller_may_say_where_files_and_addresses_are() -> None:
    case = base()
    with_projector = replace(case.plan, model=replace(case.plan.model, projector="/a/mmproj.gguf"))
    case = replace(case, plan=with_projector)
    here = server_arguments(case)
    there = server_arguments(
        case, model_path="/m/x.gguf", projector_path="/m/p.gguf", host="0.0.0.0", port=0
    )
    assert value_of(here, "--model") == case.model_path
    assert value_of(here, "--mmproj") == "/a/mmproj.gguf"
    assert (value_of(there, "--model"), value_of(there, "--mmproj")) == ("/m/x.gguf", "/m/p.gguf")
    assert (value_of(there, "--host"), value_of(there, "--port")) == ("0.0.0.0", "0")


def test_a_model_on_the_web() -> None:
    address = "https://example.org/m/resolve/main/m.gguf"
    assert value_of(server_arguments(with_file(base(), address)), "--model-url") == address


@pytest.mark.parametrize("target", [one for one in TARGETS if one.name != "vllm"])
def test_llama_cpp_runs_no_safetensors(target: Target) -> None:
    for name in ("model-00001-of-00002.safetensors", "M.SafeTensors"):
        with pytest.raises(ModelUnsupported, match="safetensors"):
            target.export(with_file(base(), f"/srv/hf/{name}"))
    target.export(with_file(base(), "/srv/ggml-model.bin"))


@pytest.mark.parametrize(
    ("location", "name"),
    [
        ("https://h/o/m%20x.gguf?download=true", "m x"),
        ("https://h/x.gguf#y", "x"),
        ("http://[", "["),
        ("https://h/a%0Ab.gguf", "model"),
        ("C:\\models\\x.gguf", "x"),
        ("/srv/back\\slash.gguf", "back\\slash"),
        ("C:x.gguf", "C:x"),
        ("/srv/.gguf", "model"),
        ("/srv/a-00001-of-00002.gguf", "a"),
        ("/srv/hf/Model/model-00001-of-00004.safetensors", "Model"),
    ],
)
def test_what_a_model_is_called(location: str, name: str) -> None:
    assert with_file(base(), location).name == name


def test_what_no_flag_says() -> None:
    settings = replace(base().settings, expert_cache_bytes=(300 << 20) + 5)
    case = replace(with_settings(base(), settings), name="a,b")
    assert [one.setting for one in unexpressed(case)] == ["expert_cache_bytes", "name"]
    assert value_of(server_arguments(case), "--moe-cache-mib") == "300"
    assert value_of(server_arguments(case), "--alias") == "a_b"
    assert unexpressed(base()) == ()


@pytest.mark.parametrize(
    "change",
    [
        {"context": INT_MAX, "parallel": 2},
        {"parallel": INT_MAX, "context": 1, "mtp_depth": 3},
        {"prompt_cache_bytes": 1 << 60},
        {"expert_cache_bytes": 1 << 60},
        {"threads": 513},
    ],
)
def test_what_llama_cpp_cannot_count(change: dict[str, Any]) -> None:
    case = with_settings(base(), replace(base().settings, **change))
    with pytest.raises(NotAPlan, match="counts to"):
        flags(case)


@given(st.lists(st.floats(1e-20, 1e20), min_size=1, max_size=8))
def test_shares_are_exact_in_single_precision(shares: list[float]) -> None:
    text = _split(tuple(shares))
    assert [struct.pack("f", float(share)) for share in text] == [
        struct.pack("f", share) for share in shares
    ]


def test_absurd_shares_keep_their_ratios() -> None:
    assert _split((1e300, 5e299)) == ["1", "0.5"]
    assert _split((1e-300, 2e-300)) == ["0.5", "1"]
    assert _split((1.0, 1e-300)) == ["1", "0"]
    assert _split((0.0, 0.0)) == ["0", "0"]


def _split(shares: tuple[float, ...]) -> list[str]:
    case = with_settings(base(), replace(base().settings, tensor_split=shares))
    return value_of(server_arguments(case), "--tensor-split").split(",")
