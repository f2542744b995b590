"""What each family of servers is told; that the flags exist, and what they mean, is checked against
the options that real servers list, and for llama.cpp by its own parser (tests/export)."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from moestro.engine.llama_server.dialects import DIALECTS
from moestro.engine.llama_server.flags import Asked, words
from moestro.errors import EngineStartFailed
from moestro.planning import Settings
from moestro.planning.settings import INT_MAX, Family
from tests.engine.llama_server.fake import HELP

SETTINGS = Settings(context=1000, parallel=3, threads=2, mtp_depth=2)
SHALLOW = replace(SETTINGS, mtp_depth=1)
FAMILIES: tuple[Family, ...] = ("llama.cpp", "ik_llama.cpp")
OTHER: dict[str, Any] = {
    "context": 2000, "parallel": 4, "threads": 1, "ubatch": 64, "cache_type_k": "q8_0",
    "cache_type_v": "q8_0", "flash_attention": "on", "unified": True, "gpu_layers": 3,
    "cpu_expert_layers": 2, "tensor_split": (1.0, 2.0), "expert_cache_bytes": 5 << 20,
    "cache_on_host": True, "mtp_depth": 3, "prompt_cache_bytes": 1 << 20,
    "context_checkpoints": 4, "threads_batch": 5, "batch": 3000, "repack": False,
    "load_mode": "mlock", "mtp_p_min": 0.5, "ngram": "mod",
}  # fmt: skip


def told(family: Family, settings: Settings, *, gpus: int = 2) -> list[str]:
    asked = Asked(settings, gpus, (1, 3, 4))
    return words(DIALECTS[family].setting_flags(asked))


def test_every_setting_has_another_value_here() -> None:
    assert set(OTHER) == {field.name for field in fields(Settings)} - {"engine"}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("setting", OTHER)
def test_no_setting_is_dropped(family: Family, setting: str) -> None:
    """It is said, or refused before the start."""
    other = replace(SETTINGS, **{setting: OTHER[setting]})
    if family == "ik_llama.cpp" and setting in ("unified", "expert_cache_bytes", "ngram"):
        with pytest.raises(EngineStartFailed, match=r"ik_llama\.cpp cannot do") as caught:
            told(family, other)
        assert caught.value.hint
    else:
        assert told(family, other) != told(family, SETTINGS)


@pytest.mark.parametrize("family", FAMILIES)
def test_servers_know_the_flags(family: Family) -> None:
    listed = HELP[family].split()
    if family == "ik_llama.cpp":  # whose help leaves out what a build without GPUs has no use for
        listed += ["--gpu-layers", "--split-mode", "--tensor-split", "--override-tensor"]
    everything = {**OTHER, "unified": False, "expert_cache_bytes": 0}
    for change in (everything | {"ngram": "off"}, everything | {"mtp_depth": 0}, {"unified": True}):
        if family == "ik_llama.cpp" and "context" not in change:
            continue
        flags = told(family, replace(SETTINGS, **change))
        flags += words(DIALECTS[family].serving_flags("127.0.0.1", 0))
        assert {word for word in flags if word.startswith("--")} <= set(listed)


def test_ik_repacks_in_place_and_reads_for_that() -> None:
    ik: Family = "ik_llama.cpp"
    plain = replace(SETTINGS, mtp_depth=0)
    assert "--run-time-repack" in told(ik, plain)
    as_it_is = told(ik, replace(plain, repack=False))
    assert "--run-time-repack" not in as_it_is
    assert "--no-mmap" not in as_it_is
    assert "--no-mmap" in told(ik, replace(plain, repack=False, load_mode="none"))
    locked = told(ik, replace(plain, repack=False, load_mode="mlock"))
    assert {"--no-mmap", "--mlock"} <= set(locked)
    with pytest.raises(EngineStartFailed, match="mapped"):
        told(ik, replace(plain, load_mode="mmap"))
    assert "--run-time-repack" not in told(ik, replace(plain, load_mode="mmap", repack=False))


def test_ik_cannot_do_this() -> None:
    dialect = DIALECTS["ik_llama.cpp"]
    for change, acceptance, what in (
        ({"unified": True}, (), "unified"),
        ({"ngram": "simple"}, (), "at once"),
        ({"expert_cache_bytes": 1}, (), "experts"),
        ({}, (0.5,), "synthetic"),
    ):
        settings = replace(SETTINGS, **change)
        with pytest.raises(EngineStartFailed, match=what):
            dialect.setting_flags(Asked(settings, 0, (), acceptance))
    # A cache of one stream is all its own.
    dialect.setting_flags(Asked(replace(SETTINGS, unified=True, parallel=1)))


def test_ik_forgets_nothing_in_silence_and_leaves_no_file() -> None:
    said = words(DIALECTS["ik_llama.cpp"].serving_flags("::1", 5))
    assert {"--no-context-shift", "--log-disable"} <= set(said)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_experts_of_the_first_blocks_stay_on_the_host(family: Family) -> None:
    given = told(family, replace(SETTINGS, cpu_expert_layers=2))
    if family == "ik_llama.cpp":
        rules = given[given.index("--override-tensor") + 1].split(",")
        assert [rule.split("\\.")[1] for rule in rules] == ["1", "3"]
        assert all(rule.endswith("=CPU") for rule in rules)
    else:
        assert given[given.index("--n-cpu-moe") + 1] == "4"
    without = told(family, replace(SETTINGS, cpu_expert_layers=2), gpus=0)
    assert not {"--override-tensor", "--n-cpu-moe"} & set(without)


def test_synthetic_acceptance() -> None:
    asked = Asked(SETTINGS, synthetic_acceptance=(0.75, 0.5))
    flags = dict(DIALECTS["llama.cpp"].setting_flags(asked))
    assert flags["--spec-synth-rates"] == "0.75,0.5"
    assert flags["--spec-type"] == "draft-mtp"
    shallow = dict(DIALECTS["llama.cpp"].setting_flags(replace(asked, settings=SHALLOW)))
    assert shallow["--spec-synth-rates"] == "0.75"  # the server wants as many as it may draft
    undrafted = replace(asked, settings=replace(SETTINGS, mtp_depth=0))
    assert "--spec-synth-rates" not in dict(DIALECTS["llama.cpp"].setting_flags(undrafted))


def test_what_costs_least_drafts_first() -> None:
    flags = dict(DIALECTS["llama.cpp"].setting_flags(Asked(replace(SETTINGS, ngram="simple"))))
    assert flags["--spec-type"] == "ngram-simple,draft-mtp"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "change", [{"context": INT_MAX}, {"threads": 513}, {"threads_batch": 513}, {"batch": 1 << 31}]
)
def test_what_servers_cannot_count(family: Family, change: dict[str, Any]) -> None:
    with pytest.raises(EngineStartFailed, match="counts to"):
        told(family, replace(SETTINGS, **change))
