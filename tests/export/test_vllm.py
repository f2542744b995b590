"""The command line for vLLM, as its shell and its parser would take it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from moestro.export import vllm
from moestro.export.deployment import Deployment
from moestro.export.flags import alias
from moestro.planning import Settings
from tests.export import golden
from tests.export.changes import EVERY, base, changed, says
from tests.export.plans import GOLDEN, deployment, plan, with_file, with_settings

SWITCHES = ("--enable-expert-parallel",)


@pytest.fixture
def shell(tmp_path: Path) -> Path:
    """A folder with a vllm that prints its arguments, and nothing else."""
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n", encoding="utf-8")
    program.chmod(0o755)
    return tmp_path


def given(folder: Path, case: Deployment) -> tuple[str, dict[str, str]]:
    """The model and the options that vllm is really given when the script runs."""
    file = vllm.export(case).files[0]
    (folder / file.name).write_text(file.text, encoding="utf-8")
    done = subprocess.run(
        ["sh", file.name], cwd=folder, env={"PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True, check=True, timeout=10,
    )  # fmt: skip
    assert done.stderr == b""
    verb, model, *rest = done.stdout.decode().split("\0")[:-1]
    assert verb == "serve"
    options: dict[str, str] = {}
    words = iter(rest)
    for word in words:
        name, joint, value = word.partition("=")
        options[name] = value if joint else "" if word in SWITCHES else next(words)
    return model, options


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    golden.check("vllm", name, vllm.export(deployment(name)))


@EVERY
def test_no_setting_is_forgotten(setting: str) -> None:
    """Another value is another command line, or another sentence about what it lacks."""
    before, after = vllm.export(base()), vllm.export(changed(setting))
    assert says(after) != says(before) or after.unexpressed != before.unexpressed


@pytest.mark.parametrize(
    "path", ["/srv/a b's/$HOME/`id`/m.gguf", "/srv/-rf.gguf", "/srv/日本.gguf", '/a"b\\c.gguf']
)
def test_the_shell_takes_names_as_they_are(shell: Path, path: str) -> None:
    case = with_file(base(), path)
    model, options = given(shell, case)
    assert model == path
    assert options["--served-model-name"] == case.name


def test_a_path_is_no_option(shell: Path) -> None:
    model, _ = given(shell, with_file(base(), "-rf.gguf"))
    assert model == "./-rf.gguf"


def test_the_name_is_the_one_of_the_other_targets(shell: Path) -> None:
    case = replace(base(), name="one,two")
    _, options = given(shell, case)
    assert options["--served-model-name"] == alias(case) == "one_two"
    assert "name" in {left.setting for left in vllm.export(case).unexpressed}


def test_drafts_are_json(shell: Path) -> None:
    _, options = given(shell, deployment("mtp"))
    assert json.loads(options["--speculative-config"]) == {
        "method": "mtp",
        "num_speculative_tokens": 2,
    }


def test_a_step_holds_a_token_and_its_drafts_of_every_stream(shell: Path) -> None:
    settings = replace(base().settings, parallel=1000, mtp_depth=3)
    _, options = given(shell, with_settings(base(), settings))
    assert options["--max-num-batched-tokens"] == "4000"


@pytest.mark.parametrize(
    ("machine", "tensor", "pipeline"),
    [("2 x rtx-4090", "2", None), ("3 x rtx-4090", None, "3"), ("4 x rtx-4090", "4", None)],
)
def test_heads_divide_among_some_numbers_of_gpus_only(
    shell: Path, machine: str, tensor: str | None, pipeline: str | None
) -> None:
    _, options = given(shell, Deployment.of(plan("Mixtral-8x7B", machine)))
    assert options.get("--tensor-parallel-size") == tensor
    assert options.get("--pipeline-parallel-size") == pipeline
    assert ("--enable-expert-parallel" in options) == (tensor is not None)


def test_memory_is_bounded_by_the_plan(shell: Path) -> None:
    case = Deployment.of(plan("demo", "rtx-4090"))
    _, options = given(shell, case)
    card = case.plan.hardware.gpus[0].memory_bytes or 0
    granted = float(options["--gpu-memory-utilization"]) * card
    planned = case.memory["GPU0"].total_bytes
    assert planned < granted < planned + (3 << 30)
    unknown = replace(case, plan=replace(case.plan, fits=None))
    _, options = given(shell, unknown)
    assert "--gpu-memory-utilization" not in options
    assert "memory" in {left.setting for left in vllm.export(unknown).unexpressed}


def test_on_a_cpu_the_cache_is_the_planned_one(shell: Path) -> None:
    case = deployment("demo-cpu")
    _, options = given(shell, case)
    assert options["--kv-cache-memory-bytes"] == str(case.memory["CPU"].cache_bytes)
    assert "--gpu-memory-utilization" not in options


def test_weights_on_the_host_are_offloaded_weights(shell: Path) -> None:
    case = deployment("experts-on-host")
    _, options = given(shell, case)
    gib = case.memory["CPU"].weights_bytes / (1 << 30)
    assert float(options["--cpu-offload-gb"]) == pytest.approx(gib, abs=0.02)
    assert "cpu_expert_layers" in {left.setting for left in vllm.export(case).unexpressed}
    _, whole = given(shell, deployment("one-gpu"))
    assert "--cpu-offload-gb" not in whole


def test_a_hugging_face_folder_is_named_and_nothing_said_of_gguf(shell: Path) -> None:
    case = with_file(base(), "/srv/hf/Model/model-00001-of-00004.safetensors")
    model, options = given(shell, case)
    assert model == "/srv/hf/Model"
    assert options["--served-model-name"] == "Model"
    assert "model" not in {left.setting for left in vllm.export(case).unexpressed}


def test_what_is_still_elsewhere_is_downloaded_first(shell: Path) -> None:
    case = with_file(base(), "https://hub.example/o/r/resolve/main/m%20x.gguf?download=true")
    model, _ = given(shell, case)
    assert model == "/srv/models/m x.gguf"
    assert vllm.export(case).use[0].startswith("Download into /srv/models: https://")


def test_a_quantized_cache_is_said_to_be_another_one(shell: Path) -> None:
    settings: Settings = replace(base().settings, cache_type_k="q4_0", cache_type_v="q4_0")
    case = with_settings(base(), settings)
    _, options = given(shell, case)
    assert options["--kv-cache-dtype"] == "fp8"
    left = next(one for one in vllm.export(case).unexpressed if one.setting == "cache_type")
    assert "q4_0" in left.planned
