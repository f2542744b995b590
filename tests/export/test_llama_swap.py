from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import Any

import pytest
import yaml

from moestro.export.allowance import start_seconds
from moestro.export.deployment import Deployment
from moestro.export.flags import server_arguments
from moestro.export.llama_swap import export, key
from tests.export import golden
from tests.export.changes import EVERY, base, forgets, says
from tests.export.plans import GOLDEN, deployment, with_file, with_settings
from tests.export.test_llama_server import COMMENTED, HOSTILE

MACRO = re.compile(r"\$\{([a-zA-Z0-9_.-]+)\}")
PORT = 5800


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    golden.check("llama-swap", name, export(deployment(name)))


@EVERY
def test_no_setting_is_forgotten(setting: str) -> None:
    assert not forgets(export, setting)


def command(config: dict[str, Any], name: str) -> list[str]:
    """As llama-swap makes it: macros first, lines that are comments dropped, then words."""
    model = config["models"][name]
    assert model["proxy"] == "http://127.0.0.1:${PORT}"
    text = model["cmd"].replace("${PORT}", str(PORT))
    assert not MACRO.search(text), "an unknown macro ends the reading"
    lines = [line for line in text.split("\n") if not line.strip().startswith("#")]
    assert not any(line.strip().endswith("\\") for line in lines)
    return shlex.split("\n".join(lines))


def read(case: Deployment) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(export(case).files[0].text)
    return found


@pytest.mark.parametrize("path", [*HOSTILE, *COMMENTED])
def test_the_command_has_the_servers_flags(path: str) -> None:
    case = with_file(base(), path)
    words = command(read(case), key(case))
    assert words == ["llama-server", *server_arguments(case, host="127.0.0.1", port=PORT)]


@pytest.mark.parametrize(
    "name", ['say "hi"', "back\\slash", "a: b # c", "日本", "- x", "{y}", "$x $(id)", "a\u00a0b"]
)
def test_names_stay_what_they_are(name: str) -> None:
    config = read(replace(base(), name=name))
    assert list(config["models"]) == [name] == config["hooks"]["on_startup"]["preload"]


def test_no_name_is_a_macro() -> None:
    """`${env.…}` is replaced in the whole text, keys and older releases' comments included."""
    case = with_file(base(), "/srv/${env.HOME}/${env.HOME} ${MODEL_ID}.gguf")
    text = export(case).files[0].text
    assert set(MACRO.findall(text)) == {"PORT"}
    config = read(case)
    (name,) = config["models"]
    assert MACRO.search(str(yaml.safe_dump(config)).replace("${PORT}", "")) is None
    assert command(config, name) == [
        "llama-server",
        *server_arguments(case, host="127.0.0.1", port=PORT),
    ]
    assert [one.setting for one in export(case).unexpressed] == ["name"]
    assert name in export(case).unexpressed[0].instead


def test_many_streams_are_let_through() -> None:
    case = base()
    assert "concurrencyLimit" not in read(case)["models"][case.name]
    many = with_settings(case, replace(case.settings, parallel=32))
    assert read(many)["models"][case.name]["concurrencyLimit"] == 32


def test_a_large_model_has_its_time() -> None:
    for name in ("demo-cpu", "experts-on-host"):
        case = deployment(name)
        assert read(case)["healthCheckTimeout"] == start_seconds(case)


def test_the_address_is_llama_swaps_own() -> None:
    case = replace(base(), host="::", port=9000)
    assert export(case).use == ("llama-swap --config llama-swap.yaml --listen '[::]:9000'",)
    assert "9000" not in says(export(case))
