"""The Compose file, read by another program's Compose parser and by the rules of its syntax."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from moestro.errors import MoestroError, UsageError
from moestro.export import compose
from moestro.export.deployment import Deployment
from moestro.export.flags import server_arguments
from tests.export import golden
from tests.export.changes import EVERY, base, forgets
from tests.export.plans import GOLDEN, deployment, plan, with_file

HOSTILE = (
    "/srv/a b/my model.gguf",
    '/srv/it\'s "so"/m.gguf',
    "/srv/$HOME/${x:-y}/$$/m.gguf",
    "/srv/back\\slash/m: #.gguf",
    "/srv/a:b/c;d/{m}.gguf",
    "/srv/日本 é/m.gguf",
    "/srv/1e3/0o17.gguf",
    "/srv/yes/no",
)
HUB = "/home/u/.cache/huggingface/hub/models--o--r"


def service(case: Deployment) -> dict[str, Any]:
    (found,) = yaml.safe_load(_text(case))["services"].values()
    assert isinstance(found, dict)
    return found


def _text(case: Deployment) -> str:
    return compose.export(case).files[0].text


def interpolated(text: str) -> str:
    """What Compose makes of a value in which it may replace nothing."""
    assert re.fullmatch(r"(?:[^$]|\$\$)*", text), f"a variable in {text!r}"
    return text.replace("$$", "$")


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    golden.check("compose", name, compose.export(deployment(name)))


@EVERY
def test_no_setting_is_forgotten(setting: str) -> None:
    assert not forgets(compose.export, setting)


@pytest.mark.parametrize("name", [*GOLDEN, "amd", "ipv6", *HOSTILE])
def test_a_parser_of_the_specification_accepts_it(name: str) -> None:
    if name in GOLDEN:
        case = deployment(name)
    elif name == "amd":
        case = Deployment.of(plan("Qwen3-30B-A3B", "rx-7900-xtx"))
    elif name == "ipv6":
        case = replace(base(), host="::1")
    else:
        case = with_file(base(), name)
    read = PyCompose.from_yaml(_text(case))
    read.validate()
    (only,) = read.service_names()
    assert only == "llama-server"


def test_that_parser_refuses_what_is_wrong() -> None:
    wrong = _text(deployment("one-gpu")).replace("restart: unless-stopped", "restart: sometimes")
    with pytest.raises(ValueError, match="restart"):
        PyCompose.from_yaml(wrong)


@pytest.mark.parametrize("path", HOSTILE)
def test_the_server_gets_its_arguments_and_sees_its_file(path: str) -> None:
    case = with_file(base(), path)
    found = service(case)
    file = path.rpartition("/")[2]
    wanted = server_arguments(case, model_path=f"/models/{file}", host="0.0.0.0", port=8080)
    assert [interpolated(word) for word in found["command"]] == wanted
    (volume,) = found["volumes"]
    assert interpolated(volume["source"]) == path
    assert interpolated(volume["target"]) == f"/models/{file}"
    assert volume["read_only"] is True


@pytest.mark.parametrize("folder", ["/home", "/root", "/etc", HUB])
def test_no_folder_is_shown(folder: str) -> None:
    """A home or a system's folder holds more than a model; links of a hub lead out of theirs."""
    case = with_file(base(), f"{folder}/m.gguf")
    assert [volume["source"] for volume in service(case)["volumes"]] == [f"{folder}/m.gguf"]


def test_every_part_keeps_its_number() -> None:
    files = ("/srv/a-00001-of-00002.gguf", "/mnt/a-00002-of-00002.gguf")
    case = with_file(base(), files[0])
    case = replace(case, plan=replace(case.plan, model=replace(case.plan.model, files=files)))
    assert [volume["target"] for volume in service(case)["volumes"]] == [
        "/models/a-00001-of-00002.gguf",
        "/models/a-00002-of-00002.gguf",
    ]


def test_a_projector_comes_along() -> None:
    case = with_file(base(), "/srv/m/model.gguf")
    model = replace(case.plan.model, projector="/srv/m/vision/mmproj.gguf")
    found = service(replace(case, plan=replace(case.plan, model=model)))
    assert found["volumes"][1]["source"] == "/srv/m/vision/mmproj.gguf"
    assert "/models/mmproj.gguf" in found["command"]
    alike = replace(model, projector="/mnt/model.gguf")
    with pytest.raises(MoestroError, match=r"called model\.gguf"):
        compose.export(replace(case, plan=replace(case.plan, model=alike)))


@pytest.mark.parametrize(
    ("location", "step"),
    [
        ("https://hub.example/o/r/m%20x.gguf", "Download into /srv/models: https://"),
        ("models/m x.gguf", "Copy into /srv/models: models/m x.gguf"),
        ("C:\\models\\m x.gguf", "Copy into /srv/models: C:\\models"),
    ],
)
def test_what_is_elsewhere_gets_a_place(location: str, step: str) -> None:
    case = with_file(base(), location)
    assert "/models/m x.gguf" in service(case)["command"]
    assert compose.export(case).use[0].startswith(step)


def test_the_port_is_published_at_the_planned_address_alone() -> None:
    found = service(replace(base(), host="192.0.2.7", port=9000))
    (port,) = found["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("192.0.2.7", "9000", 8080)
    assert service(replace(base(), host="localhost"))["ports"][0]["host_ip"] == "127.0.0.1"
    with pytest.raises(UsageError, match="is a name"):
        compose.export(replace(base(), host="example.org"))


def test_each_makers_image_and_devices() -> None:
    nvidia = service(deployment("two-gpus"))
    assert nvidia["image"].endswith(":server-cuda-b11549")
    wanted = nvidia["deploy"]["resources"]["reservations"]["devices"]
    assert wanted == [{"driver": "nvidia", "count": 2, "capabilities": ["gpu"]}]
    amd = service(Deployment.of(plan("Qwen3-30B-A3B", "rx-7900-xtx")))
    assert amd["image"].endswith(":server-rocm-b11549")
    assert "/dev/kfd:/dev/kfd" in amd["devices"]
    cpu = service(deployment("demo-cpu"))
    assert cpu["image"].endswith(":server-b11549")
    assert "deploy" not in cpu


def test_gpus_of_two_makers_are_refused() -> None:
    with pytest.raises(MoestroError, match="several makers"):
        compose.export(Deployment.of(plan("Qwen3-30B-A3B", "rtx-4090, rx-7900-xtx")))


def test_a_key_that_stays() -> None:
    """One in the environment of a single `up` is gone with the next."""
    use = compose.export(base()).use
    up = use.index("docker compose up --detach --wait")
    assert any(".env" in step and "LLAMA_API_KEY=" in step for step in use[:up])


def test_a_mac_has_no_gpu_in_containers() -> None:
    mac = compose.export(Deployment.of(plan("demo", "m4-max")))
    assert "gpu_layers" in {left.setting for left in mac.unexpressed}


def test_memory_is_bounded_by_the_plan_without_swap() -> None:
    found = service(deployment("experts-on-host"))
    assert found["mem_limit"] == found["memswap_limit"]
    limit = int(found["mem_limit"].removesuffix("m")) << 20
    assert limit > deployment("experts-on-host").host_bytes
    case = deployment("demo-cpu")
    assert "mem_limit" not in service(replace(case, plan=replace(case.plan, fits=None)))


def test_a_gpu_in_the_hosts_memory_counts_as_host() -> None:
    mac = Deployment.of(plan("Qwen3-30B-A3B", "m4-max"))
    limit = int(service(mac)["mem_limit"].removesuffix("m")) << 20
    assert limit > mac.host_bytes + mac.memory["GPU0"].total_bytes


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("Qwen3.6-35B-A3B", r"qwen3-6-35b-a3b"),
        ("Qwen3.6-35B-A3B-Q4_K_M", r"qwen3-6-35b-a3b-q4-k-m"),
        ("C++", r"c-[0-9a-f]{8}"),
        ("7B", r"model-7b-[0-9a-f]{8}"),
        ("模型", r"(model-)?[0-9a-f]{8}"),
        ("x" * 80, r"x{31}-[0-9a-f]{8}"),
        ("--..--", r"(model-)?[0-9a-f]{8}"),
    ],
)
def test_names_are_good_for_projects(name: str, safe: str) -> None:
    found = yaml.safe_load(_text(replace(base(), name=name)))["name"]
    assert re.fullmatch(safe, found)
    assert re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", found)


def test_no_two_names_are_alike() -> None:
    names = ("a-b", "a b", "a--b", "-a-b", "C++", "C#", "c", "x" * 41, "x" * 42)
    found = [yaml.safe_load(_text(replace(base(), name=name)))["name"] for name in names]
    assert len(set(found)) == len(names)
