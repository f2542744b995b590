"""The command line and the presets, read again as their readers read them."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from moestro.export import llama_server, llama_server_ini
from moestro.export.deployment import Deployment
from moestro.export.flags import flags, server_arguments, unexpressed
from moestro.findings import Finding, Severity
from tests.export import golden
from tests.export.changes import EVERY, base, forgets
from tests.export.plans import GOLDEN, deployment, with_file

HOSTILE = (
    "/srv/a b/my model.gguf",
    "/srv/it's.gguf",
    '/srv/say "hi".gguf',
    "/srv/100%.gguf",
    "/srv/$HOME/${x}/$(id)/`id`.gguf",
    "/srv/back\\slash\\.gguf",
    "/srv/a=b&c|d>e<f(g){h}[i]!*?~^.gguf",
    "-rf.gguf",
    "/srv/日本 é.gguf",
)
COMMENTED = ("/srv/a#b.gguf", "/srv/a;b.gguf", "/srv/ends.gguf ")


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    golden.check("llama-server", name, llama_server.export(deployment(name)))
    golden.check("llama-server-ini", name, llama_server_ini.export(deployment(name)))


@EVERY
def test_no_setting_is_forgotten(setting: str) -> None:
    assert not forgets(llama_server.export, setting)
    assert not forgets(llama_server_ini.export, setting)


@pytest.fixture
def shell(tmp_path: Path) -> Path:
    """A folder with a llama-server that prints its arguments, and nothing else."""
    program = tmp_path / "llama-server"
    program.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n", encoding="utf-8")
    program.chmod(0o755)
    return tmp_path


def run(folder: Path, case: Deployment) -> list[str]:
    """What the program is really given when the script runs."""
    exported = llama_server.export(case)
    (folder / exported.files[0].name).write_text(exported.files[0].text, encoding="utf-8")
    done = subprocess.run(
        exported.use[0].split(), cwd=folder, env={"PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True, check=True, timeout=10,
    )  # fmt: skip
    assert done.stderr == b""
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize("path", [*HOSTILE, *COMMENTED])
def test_the_shell_gives_the_server_its_flags(shell: Path, path: str) -> None:
    case = with_file(base(), path)
    assert run(shell, case) == server_arguments(case)


def test_a_machine_cannot_smuggle_a_command_into_a_comment(shell: Path) -> None:
    case = base()
    gpu = replace(case.plan.hardware.gpus[0], name="GPU\ntouch owned\r\u2028touch owned")
    hardware = replace(case.plan.hardware, gpus=(gpu, *case.plan.hardware.gpus[1:]))
    case = replace(case, plan=replace(case.plan, hardware=hardware))
    assert run(shell, case) == server_arguments(case)
    assert not (shell / "owned").exists()
    assert set(read_ini(llama_server_ini.export(case).files[0].text)) == {case.name}


SECTION = re.compile(r"\[[ \t]*([^]]+)[ \t]*\][ \t]*(?:[;#].*)?")
PAIR = re.compile(r"([a-zA-Z_][a-zA-Z0-9_.-]*)[ \t]*=[ \t]*(.*?)[ \t]*(?:[;#].*)?")
EMPTY = re.compile(r"[ \t]*(?:[;#].*)?")


def read_ini(text: str) -> dict[str, dict[str, str]]:
    """By the grammar in `common/preset.cpp`, line by line; what fits no rule ends the reading."""
    found: dict[str, dict[str, str]] = {}
    section = ""
    for line in re.split(r"\r\n|\n|\r", text):
        if match := SECTION.fullmatch(line):
            section = match[1]
            found[section] = {}
        elif match := PAIR.fullmatch(line):
            found.setdefault(section, {})[match[1]] = match[2]
        else:
            assert EMPTY.fullmatch(line), line
    return found


@pytest.mark.parametrize("path", HOSTILE)
def test_the_router_reads_the_same_flags(path: str) -> None:
    case = with_file(base(), path)
    exported = llama_server_ini.export(case)
    ((name, options),) = read_ini(exported.files[0].text).items()
    assert name == llama_server_ini.section(case)
    assert options.pop("load-on-startup") == "true"
    wanted = [flag for flag in flags(case) if flag[0] not in ("--host", "--port", "--alias")]
    assert list(options) == [llama_server_ini.entry(flag)[0] for flag in wanted]
    for flag, value in zip(wanted, options.values(), strict=True):
        assert value == (flag[1] or ("false" if flag[0].startswith("--no-") else "true"))


@pytest.mark.parametrize("path", COMMENTED)
def test_a_name_that_presets_cannot_hold_is_left_out_and_said(path: str) -> None:
    exported = llama_server_ini.export(with_file(base(), path))
    (options,) = read_ini(exported.files[0].text).values()
    assert "model" not in options
    assert [one.planned for one in exported.unexpressed if one.setting == "model"] == [path]


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("a]b", "a_b"),
        ("*", "*-model"),
        ("default", "default-model"),
        ("m:q4", "m_q4"),
        ("a,b", "a_b"),
    ],
)
def test_names_that_the_router_reads_in_its_own_way(name: str, section: str) -> None:
    exported = llama_server_ini.export(replace(base(), name=name))
    assert list(read_ini(exported.files[0].text)) == [section]
    assert [one.setting for one in exported.unexpressed] == ["name"]


def test_who_may_come_in_is_said() -> None:
    for host, said in (("127.0.0.1", False), ("::1", False), ("0.0.0.0", True), ("box", True)):
        text = llama_server.export(replace(base(), host=host)).files[0].text
        assert ("Whoever reaches it" in text) is said
        assert ("Every program here" in text) is not said
        assert "LLAMA_API_KEY" in text
        assert f"--host {host} " in text
        (step,) = llama_server_ini.export(replace(base(), host=host)).use
        assert f"--host {host} --port 8080" in step


def test_web_pages_are_not_answered() -> None:
    """Its own default is `*`: without a key, every page that is visited could use the server."""
    assert "--cors-origins localhost" in llama_server.export(base()).files[0].text
    router = llama_server_ini.export(base())
    assert "cors-origins = localhost" in router.files[0].text
    assert "--cors-origins localhost" in router.use[0]


def test_what_is_not_said_is_whole_in_the_comment() -> None:
    case = replace(base(), name=f"a,{'long ' * 60}b")
    text = llama_server.export(case).files[0].text
    comments = [line.removeprefix("#").strip() for line in text.splitlines() if line[:1] == "#"]
    (left,) = unexpressed(case)
    assert f"{left.planned}): {left.instead}" in " ".join(comments)
    assert max(map(len, comments)) <= 98


def test_a_plan_that_fails_says_so() -> None:
    finding = Finding(Severity.FAIL, "mtp-absent", "MTP was asked for")
    case = replace(base(), plan=replace(base().plan, findings=(finding,)))
    assert "MTP was asked for" in llama_server.export(case).files[0].text
