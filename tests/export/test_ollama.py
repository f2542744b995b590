from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moestro.demo import model_path
from moestro.export.allowance import start_seconds
from moestro.export.deployment import Deployment
from moestro.export.ollama import export, model_tag
from moestro.model import read_model
from tests.export import golden
from tests.export.changes import EVERY, OTHER, base, forgets
from tests.export.plans import GOLDEN, deployment, with_file, with_settings
from tests.export.real_parser import case_of, side_by_side
from tests.export.test_llama_server import COMMENTED, HOSTILE


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    golden.check("ollama", name, export(deployment(name)))


@EVERY
def test_no_setting_is_forgotten(setting: str) -> None:
    assert not forgets(export, setting)


def read_modelfile(text: str) -> list[tuple[str, str]]:
    """As `parser.ParseFile` does: a command to a line, its value trimmed, then unquoted."""
    found = []
    for line in text.split("\n"):
        if not line or line.startswith("#"):
            continue
        command, _, value = line.partition(" ")
        value = value.strip()
        if value.startswith('"'):
            assert value.endswith('"')
            value = value[1:-1]
        found.append((command, value))
    return found


def environment(case: Deployment, folder: Path) -> dict[str, str]:
    """What `ollama serve` sees in a shell of its own."""
    exported = export(case)
    (folder / "ollama.env").write_text(exported.files[1].text, encoding="utf-8")
    program = folder / "ollama"
    program.write_text('#!/bin/sh\n[ "$1" = serve ] && env -0\n', encoding="utf-8")
    program.chmod(0o755)
    serve = next(step for step in exported.use if step.endswith("ollama serve"))
    done = subprocess.run(
        ["sh", "-c", serve], cwd=folder, env={"PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True, check=True, timeout=10,
    )  # fmt: skip
    pairs = (item.partition("=") for item in done.stdout.decode().split("\0")[:-1])
    return {name: value for name, _, value in pairs if name.startswith(("OLLAMA", "LLAMA"))}


@pytest.mark.parametrize("path", [*HOSTILE, *COMMENTED, '/srv/"quoted"'])
def test_the_modelfile_names_the_file(path: str) -> None:
    pairs = read_modelfile(export(with_file(base(), path)).files[0].text)
    assert pairs[0] == ("FROM", path if path.startswith("/") else f"./{path}")
    assert {command for command, _ in pairs[1:]} == {"PARAMETER"}


def test_a_projector_is_a_second_model() -> None:
    case = base()
    model = replace(case.plan.model, projector="/srv/mmproj.gguf")
    pairs = read_modelfile(
        export(replace(case, plan=replace(case.plan, model=model))).files[0].text
    )
    assert [value for command, value in pairs if command == "FROM"] == [
        case.model_path,
        "/srv/mmproj.gguf",
    ]


def test_the_environment(tmp_path: Path) -> None:
    case = deployment("two-gpus")
    assert environment(case, tmp_path) == {
        "OLLAMA_NUM_PARALLEL": "4",
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_HOST": "127.0.0.1:8080",
        "OLLAMA_LOAD_TIMEOUT": f"{start_seconds(case)}s",
        "OLLAMA_KV_CACHE_TYPE": "f16",
        "OLLAMA_SCHED_SPREAD": "1",
        "LLAMA_ARG_KV_UNIFIED": "false",
        "LLAMA_ARG_CACHE_RAM": "1024",
        "LLAMA_ARG_CACHE_IDLE_SLOTS": "true",
        "LLAMA_ARG_CTX_CHECKPOINTS": "0",
        "LLAMA_ARG_FIT": "off",
        "LLAMA_ARG_KV_OFFLOAD": "true",
        "LLAMA_ARG_SPLIT_MODE": "layer",
        "LLAMA_ARG_TENSOR_SPLIT": "22,11",
        "LLAMA_ARG_REPACK": "true",
    }
    settings = replace(
        case.settings, cache_type_k="q8_0", flash_attention="off", unified=True,
        cache_on_host=True, prompt_cache_bytes=0, cpu_expert_layers=3, tensor_split=None,
    )  # fmt: skip
    other = replace(with_settings(case, settings), host="0.0.0.0")
    found = environment(other, tmp_path)
    assert "OLLAMA_KV_CACHE_TYPE" not in found  # it would be for both
    assert (
        found.items()
        >= {
            "LLAMA_ARG_CACHE_TYPE_K": "q8_0",
            "LLAMA_ARG_CACHE_TYPE_V": "f16",
            "OLLAMA_FLASH_ATTENTION": "0",
            "OLLAMA_HOST": "0.0.0.0:8080",
            "LLAMA_ARG_KV_UNIFIED": "true",
            "LLAMA_ARG_KV_OFFLOAD": "false",
            "LLAMA_ARG_CACHE_RAM": "0",
            "LLAMA_ARG_CACHE_IDLE_SLOTS": "false",
            "LLAMA_ARG_N_CPU_MOE": "3",
        }.items()
    )
    assert environment(replace(case, port=99), tmp_path)["OLLAMA_HOST"] == "127.0.0.1:99"
    assert environment(replace(case, host="::1"), tmp_path)["OLLAMA_HOST"] == "[::1]:8080"


def test_the_steps_can_be_followed(tmp_path: Path) -> None:
    """The server keeps its shell, so the model is made in another, which needs the address too."""
    case = replace(base(), port=99)
    (tmp_path / "ollama.env").write_text(export(case).files[1].text, encoding="utf-8")
    program = tmp_path / "ollama"
    program.write_text('#!/bin/sh\necho "$1 $OLLAMA_HOST"\n', encoding="utf-8")
    program.chmod(0o755)
    use = export(case).use
    said = [
        subprocess.run(
            ["sh", "-c", step], cwd=tmp_path, env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            capture_output=True, check=True, timeout=10, text=True,
        ).stdout
        for step in use
        if step.startswith("set ")
    ]  # fmt: skip
    assert said == ["serve 127.0.0.1:99\n", "create 127.0.0.1:99\n"]
    assert "http://127.0.0.1:99/v1" in use[-1]
    drop_in = next(step for step in use if "EnvironmentFile=" in step)
    made = subprocess.run(
        ["sh", "-c", drop_in.partition(" | ")[0]], capture_output=True, check=True, timeout=10
    )
    assert made.stdout == b"[Service]\nEnvironmentFile=/etc/ollama/ollama.env\n"


def ollamas_flags(case: Deployment, environment: dict[str, str]) -> list[str]:
    """What `startLlamaServer` makes of the Modelfile's parameters and of its own variables."""
    pairs = read_modelfile(export(case).files[0].text)
    options = dict(value.split() for command, value in pairs if command == "PARAMETER")
    streams = int(environment["OLLAMA_NUM_PARALLEL"])
    total = int(options["num_ctx"]) * streams
    words = ["--model", case.model_path, "-c", str(total), "-np", str(streams)]
    if (types := environment.get("OLLAMA_KV_CACHE_TYPE")) is not None:
        words += ["--cache-type-k", types, "--cache-type-v", types]
    flash = {"1": "on", "0": "off"}.get(environment.get("OLLAMA_FLASH_ATTENTION", ""), "auto")
    batch = options["num_batch"]
    words += ["--flash-attn", flash, "-b", batch, "-ub", batch, "-ngl", options["num_gpu"]]
    words += ["-t", options["num_thread"]]
    if depth := int(options["draft_num_predict"]):
        words += ["--spec-type", "draft-mtp", "--spec-draft-n-max", str(depth)]
    return words


def test_ollamas_llama_server_gets_the_plan(tmp_path: Path) -> None:
    """Read by the engine's own parser, variables and all."""
    demo = with_file(deployment("two-gpus"), str(model_path()))
    model = replace(demo.plan.model, expert_blocks=read_model(model_path()).expert_blocks)
    demo = replace(demo, plan=replace(demo.plan, model=model))
    changes: list[dict[str, Any]] = [{}]
    unsaid = {"expert_cache_bytes", "engine", "threads_batch", "load_mode", "ngram"}
    changes += [{name: value} for name, value in OTHER.items() if name not in unsaid]
    changes.append({"mtp_depth": 2, "mtp_p_min": 0.25})
    given = [with_settings(demo, replace(demo.settings, **change)) for change in changes]
    cases = []
    for case in given:
        variables = environment(case, tmp_path)
        cases.append(case_of(case, ollamas_flags(case, variables), variables))
    for change, (parsed, embedded) in zip(changes, side_by_side(cases), strict=True):
        unlike = {key for key in parsed if parsed[key] != embedded[key]}
        assert unlike <= {
            "n_batch", "port", "api_keys", "model_alias", "ui", "endpoint_metrics",
            "speculative.types", "load_mtp",
        }, change  # fmt: skip


def test_what_ollama_does_otherwise() -> None:
    def listed(case: Deployment) -> list[str]:
        return [one.setting for one in export(case).unexpressed]

    case = base()
    settings = replace(case.settings, expert_cache_bytes=1 << 30)
    assert listed(with_settings(case, settings)) == ["parallel", "batch", "expert_cache_bytes"]
    alone = with_settings(case, replace(case.settings, parallel=1))
    assert listed(alone) == ["batch"]
    assert listed(deployment("unified-q8")) == []
    long = with_settings(alone, replace(alone.settings, context=10_000_000))
    assert listed(long) == ["context", "batch"]
    parts = replace(
        alone.plan.model, files=("/srv/a-00001-of-00002.gguf", "/srv/a-00002-of-00002.gguf")
    )
    assert listed(replace(alone, plan=replace(alone.plan, model=parts))) == ["model", "batch"]
    small = deployment("demo-cpu")
    small = with_settings(small, replace(small.settings, parallel=64, mtp_depth=3, ubatch=32))
    assert listed(small) == ["parallel", "ubatch"]
    assert listed(with_file(alone, "https://example.org/m.gguf")) == ["model", "batch"]


@pytest.mark.parametrize(
    ("name", "tag"),
    [("Q 3.6 (new)", "Q-3.6-new"), (".hidden", "hidden"), ("日本", "model"), ("x" * 99, "x" * 80)],
)
def test_ollamas_names(name: str, tag: str) -> None:
    assert model_tag(replace(base(), name=name)) == tag
