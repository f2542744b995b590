"""`moestro inspect`: JSON for programs, a page for people, a sentence for mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from moestro.cli.anatomy import render
from moestro.cli.main import main
from moestro.model import read_model
from tests.model.servers import serving
from tests.shapes import PUBLISHED, Shape, write_header
from tests.shapes.hugging_face import NAMES, to_hugging_face, write_folder
from tests.shapes.published import deepseek_v3, gpt_oss_20b, qwen36_35b_a3b
from tests.tiny_models import TINY

ROLES = [
    "routed_experts",
    "shared_experts",
    "router",
    "attention",
    "recurrent",
    "dense_ffn",
    "embedding",
    "output",
    "mtp",
    "other",
]


def header(shape: Shape, folder: Path, **options: Any) -> str:
    return str(write_header(shape, folder / "model.gguf", vocab_tokens=300, **options))


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> Any:
    assert main(["inspect", "--json", *arguments]) == status
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    return json.loads(out)


@pytest.mark.parametrize("name", PUBLISHED)
def test_json_keeps_its_promise(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = as_json(capsys, header(PUBLISHED[name](), tmp_path))
    assert found["architecture"] == PUBLISHED[name]().architecture
    assert isinstance(found["name"], str)
    assert found["context_length"] > 0
    assert 0 < found["parameters"]["active"] <= found["parameters"]["total"]
    assert set(found["bytes"]) == {"total", *ROLES}
    assert sum(found["bytes"][role] for role in ROLES) == found["bytes"]["total"]
    assert sum(found["types"].values()) == found["bytes"]["total"]
    assert set(found["cache"]) >= {"bytes_per_token", "recurrent_bytes_per_sequence"}
    assert 0 < found["bytes_read_per_token"] <= found["bytes"]["total"]
    assert found["findings"] == []
    if found["experts"] is not None:
        assert set(found["experts"]) == {"count", "used", "shared", "gating", "layers"}
    integers = [*found["bytes"].values(), *found["parameters"].values()]
    assert all(type(number) is int for number in integers)


def test_golden_numbers_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, header(qwen36_35b_a3b(0), tmp_path))
    assert found["parameters"]["total"] == 34_660_610_688
    assert found["mtp"] is None
    assert found["cache"] == {
        "bytes_per_token": 20_480,
        "window_bytes_per_sequence": 0,
        "recurrent_bytes_per_sequence": 65_863_680,
    }
    assert found["layers"] == {"count": 40, "kinds": {"recurrent": 30, "attention": 10}}
    assert as_json(capsys, header(qwen36_35b_a3b(1), tmp_path))["mtp"] == {"layers": 1}


def test_a_finding_of_severity_fail_is_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = header(deepseek_v3(), tmp_path, drop_keys=("deepseek2.expert_gating_func",))
    found = as_json(capsys, path, status=1)
    (finding,) = found["findings"]
    assert finding["code"] == "gating-function-lost"
    assert set(finding) == {"severity", "code", "title", "evidence", "fix"}


def test_a_mistake_is_a_sentence_and_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "page.gguf"
    path.write_text("<!DOCTYPE html>", encoding="utf-8")
    assert main(["inspect", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first == "error: page.gguf is a web page, not a GGUF model."
    assert second.startswith("hint: ")
    assert main(["inspect", "--json", str(path)]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "not-a-model"


def test_wrong_usage_is_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect"]) == 2
    assert main(["inspect", "hf:nonsense"]) == 2
    assert main(["inspect", "--no-such-option", "x"]) == 2
    capsys.readouterr()


def test_an_address_and_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header(TINY["qwen3moe"](), tmp_path)
    with serving(tmp_path) as served:
        found = as_json(capsys, f"{served.url}/model.gguf")
    assert found["transferred_bytes"] == served.bytes_sent
    assert found["files"][0]["location"] == f"{served.url}/model.gguf"
    shape = TINY["llama"]()
    config = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64,
              "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
    tensors = to_hugging_face(shape, NAMES["llama"], mtp_prefix=False)
    folder = write_folder(tmp_path / "hf", config, tensors)
    assert as_json(capsys, str(folder))["parameters"]["total"] == shape.parameters


def drawn(path: str, width: int) -> list[str]:
    console = Console(file=StringIO(), width=width, color_system=None, force_terminal=False)
    render(read_model(Path(path)), console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def test_the_page_for_people_at_80_columns(tmp_path: Path) -> None:
    lines = [line.rstrip() for line in drawn(header(qwen36_35b_a3b(), tmp_path), 80)]
    assert max(map(len, lines)) <= 80
    assert lines[:8] == [
        "shape of qwen35moe  qwen35moe · Q4_K_M",
        "parameters   35.51 B in all, 2.95 B read per token",
        "weights      21.5 GiB, 1.83 GiB read per token",
        "experts      256 in 40 of 40 layers, 8 used per token, 1 shared; softmax gating",
        "layers       40: 30 recurrent, 10 attention",
        "context      262,144 tokens",
        "cache (f16)  20.0 KiB per token + 62.8 MiB of state = 223 MiB at 8,192",
        "MTP          1 layer of multi-token prediction",
    ]
    assert lines[9].startswith("routed experts  19.5 GiB  90.7%  ████")
    assert len(lines) <= 22


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("make", [gpt_oss_20b, deepseek_v3])
def test_nothing_runs_over_the_edge(make: Any, width: int, tmp_path: Path) -> None:
    path = header(make(), tmp_path, skip=("nextn.",))
    assert max(map(len, drawn(path, width))) <= width


def test_hostile_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    shape = TINY["qwen3moe"]()
    shape.metadata["general.name"] = "\x1b[31mred\x07 [bold]x[/bold]"
    page = "\n".join(drawn(header(shape, tmp_path), 80))
    assert "\x1b" not in page
    assert "\x07" not in page
    assert "[bold]x[/bold]" in page


def test_inspect_stays_light() -> None:
    """The whole process reads a header in a fraction of a second because it imports little."""
    code = (
        "import sys; import moestro.cli.inspect; "
        "heavy = {'rich', 'aiohttp', 'huggingface_hub', 'urllib.request', 'numpy', 'xllamacpp', "
        "'starlette', 'asyncio'}; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
