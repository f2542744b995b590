"""The unit, read by systemd's own rules and, where it is here, by systemd."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from moestro.export import systemd
from moestro.export.deployment import Deployment
from moestro.export.flags import server_arguments
from tests.export import golden
from tests.export.changes import EVERY, base, forgets
from tests.export.plans import GOLDEN, deployment, plan, with_file

HOSTILE = (
    "/srv/a b/my model.gguf",
    '/srv/it\'s "so"/m.gguf',
    "/srv/%i/%%/100%.gguf",
    "/srv/$HOME/${x}/$$/$(id).gguf",
    "/srv/back\\slash\\x/m\\.gguf",
    "/srv/a:b/c;d/m.gguf",
    "/srv/日本 é/m.gguf",
    "/srv/x/; rm.gguf",
)


def words(text: str) -> list[str]:
    """systemd.syntax(7) and systemd.service(5): words, quotes, backslashes, `%` and `$`."""
    found: list[str] = []
    word: str | None = None
    quote = ""
    signs = iter(text)
    for sign in signs:
        if sign == "\\":
            word = (word or "") + next(signs)
        elif quote:
            quote = "" if sign == quote else quote
            word = (word or "") + (sign if quote else "")
        elif sign in "\"'":
            quote, word = sign, word or ""
        elif sign.isspace():
            found += [] if word is None else [word]
            word = None
        else:
            word = (word or "") + sign
    assert not quote
    return [_specified(one) for one in (*found, *([] if word is None else [word]))]


def _specified(word: str) -> str:
    assert re.fullmatch(r"(?:[^%]|%%)*", word), f"a specifier in {word!r}"
    return word.replace("%%", "%")


def _environment(word: str) -> str:
    assert re.fullmatch(r"(?:[^$]|\$\$)*", word), f"a variable in {word!r}"
    return word.replace("$$", "$")


def entries(case: Deployment) -> dict[str, list[str]]:
    """Every setting of the unit with its values, continued lines joined."""
    text = systemd.export(case).files[0].text.replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    golden.check("systemd", name, systemd.export(deployment(name)))


@EVERY
def test_no_setting_is_forgotten(setting: str) -> None:
    assert not forgets(systemd.export, setting)


@pytest.mark.parametrize("path", HOSTILE)
def test_the_server_gets_its_arguments_and_sees_its_file(path: str) -> None:
    case = with_file(base(), path)
    found = entries(case)
    (line,) = found["ExecStart"]
    program, *arguments = map(_environment, words(line))
    assert program == systemd.PROGRAM
    assert arguments == server_arguments(case)
    assert [words(line) for line in found["BindReadOnlyPaths"]] == [[path]]
    assert [words(line) for line in found["RequiresMountsFor"]] == [[path]]


def test_every_file_is_shown_and_no_folder() -> None:
    case = with_file(base(), "/root/x/../m.gguf")
    model = replace(case.plan.model, projector="//mnt//mmproj.gguf")
    found = entries(replace(case, plan=replace(case.plan, model=model)))
    assert found["BindReadOnlyPaths"] == ["/root/m.gguf", "/mnt/mmproj.gguf"]
    assert "--model /root/m.gguf --mmproj /mnt/mmproj.gguf" in re.sub(
        r"\s+", " ", found["ExecStart"][0]
    )


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    cases = [deployment(name) for name in GOLDEN]
    cases += [with_file(base(), path) for path in HOSTILE]
    cases += [replace(cases[0], port=80, host="::"), with_file(_amd(), "/srv/m.gguf")]
    files = []
    for number, case in enumerate(cases):
        file = systemd.export(case).files[0]
        # The programs of other machines are not here.
        text = file.text.replace(systemd.PROGRAM, "/bin/true")
        files.append(tmp_path / f"{number}-{file.name}")
        files[-1].write_text(text, encoding="utf-8")
    broken = tmp_path / "broken.service"
    broken.write_text("[Service]\nExecStart=/bin/true\nProtectHome=perhaps\n", encoding="utf-8")
    assert "perhaps" in _verified([broken])
    assert _verified(files) == ""


def _verified(files: list[Path]) -> str:
    """What systemd has to say of these units; of others of this machine it may say more."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, files)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    names = [file.name for file in files]
    return "\n".join(line for line in done.stderr.splitlines() if any(n in line for n in names))


def test_started_means_ready_and_a_dead_server_ends_the_wait(tmp_path: Path) -> None:
    """The words that wait are run as they are: with a curl that fails, and a process that ended."""
    (line,) = entries(deployment("demo-cpu"))["ExecStartPost"]
    _, option, script = map(_environment, words(line))
    assert option == "-c"
    curl = tmp_path / "curl"
    gone = subprocess.Popen(["/bin/true"])
    gone.wait()
    for code, status in (("exit 7", 1), ("exit 0", 0)):
        curl.write_text(f"#!/bin/sh\n{code}\n", encoding="utf-8")
        curl.chmod(0o755)
        done = subprocess.run(
            ["/bin/sh", "-c", script], capture_output=True, timeout=20, check=False,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "MAINPID": str(gone.pid)},
        )  # fmt: skip
        assert done.returncode == status


@pytest.mark.parametrize(
    ("host", "asked", "closed"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080/health", True),
        ("0.0.0.0", "http://127.0.0.1:8080/health", False),
        ("::", "'http://[::1]:8080/health'", False),
        ("::1", "'http://[::1]:8080/health'", True),
        ("10.0.0.7", "http://10.0.0.7:8080/health", False),
    ],
)
def test_the_network_it_needs(host: str, asked: str, closed: bool) -> None:
    found = entries(replace(deployment("demo-cpu"), host=host))
    assert f"/dev/null {asked};" in found["ExecStartPost"][0]
    assert ("IPAddressDeny" in found) == closed


def test_devices_are_those_of_the_planned_gpus() -> None:
    assert entries(deployment("demo-cpu"))["PrivateDevices"] == ["yes"]
    nvidia = entries(deployment("one-gpu"))
    assert nvidia["DeviceAllow"] == ["char-nvidia* rwm"]
    assert "PrivateDevices" not in nvidia
    amd = entries(_amd())
    assert amd["DeviceAllow"] == ["char-kfd rw", "char-drm rw"]
    assert amd["SupplementaryGroups"] == ["render video"]
    both = entries(Deployment.of(plan("Qwen3-30B-A3B", "rx-7900-xtx, rtx-4090")))
    assert both["DeviceAllow"] == ["char-nvidia* rwm", "char-kfd rw", "char-drm rw"]
    assert both["ExecStartPre"]


def _amd() -> Deployment:
    return Deployment.of(plan("Qwen3-30B-A3B", "rx-7900-xtx"))


def test_memory_and_time_follow_the_plan() -> None:
    small, large = entries(deployment("demo-cpu")), entries(deployment("experts-on-host"))
    planned = deployment("experts-on-host").host_bytes
    limit = int(large["MemoryMax"][0].removesuffix("M")) << 20
    assert planned + (1 << 30) < limit < planned + (10 << 30)
    assert int(large["TimeoutStartSec"][0]) > 3600 > int(small["TimeoutStartSec"][0])
    # Five starts that each run into the timeout are within the interval.
    assert int(small["StartLimitIntervalSec"][0]) > 5 * int(small["TimeoutStartSec"][0])


def test_a_plan_that_does_not_know_its_memory_gets_no_limit() -> None:
    case = deployment("demo-cpu")
    unknown = replace(case, plan=replace(case.plan, fits=None))
    assert "MemoryMax" not in entries(unknown)
    assert [left.setting for left in systemd.export(unknown).unexpressed] == ["memory"]


def test_low_ports_are_allowed() -> None:
    found = entries(replace(deployment("demo-cpu"), port=443))
    assert found["AmbientCapabilities"] == ["CAP_NET_BIND_SERVICE"]
    assert entries(deployment("demo-cpu"))["CapabilityBoundingSet"] == [""]


def test_another_system_is_said() -> None:
    mac = Deployment.of(plan("demo", "m4-max"))
    assert "system" in {left.setting for left in systemd.export(mac).unexpressed}
