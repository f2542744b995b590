"""The manifests, held to Kubernetes' own schemas and to what its API adds to them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest
import yaml

from moestro.errors import MoestroError
from moestro.export import kubernetes
from moestro.export.container import safe_name
from moestro.export.deployment import Deployment
from moestro.export.flags import server_arguments
from tests.export import golden
from tests.export.changes import EVERY, base, forgets
from tests.export.plans import GOLDEN, deployment, plan, with_file

RELEASES = ("1.28", "1.37")
"""The oldest that managed clusters still ran in 2026, and the newest that the schemas know."""

HOSTILE = (
    "/srv/my model.gguf",
    "/srv/$(HOME)/$(id).gguf",
    "/srv/$$(x) $y ${z} $.gguf",
    '/srv/say "hi" it\'s.gguf',
    "/srv/back\\slash: #.gguf",
    "/srv/日本 é.gguf",
)


def manifests(case: Deployment) -> list[dict[str, Any]]:
    texts = [file.text for file in kubernetes.export(case).files]
    return [document for text in texts for document in yaml.safe_load_all(text)]


def only(case: Deployment, kind: str) -> dict[str, Any]:
    (found,) = (one for one in manifests(case) if one["kind"] == kind)
    return found


def server(case: Deployment) -> dict[str, Any]:
    (found,) = only(case, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def expanded(text: str) -> str:
    """What a container is given for an argument, by the rules of Kubernetes' own `Expand`."""
    found, signs = "", iter(text)
    for sign in signs:
        if sign != "$":
            found += sign
            continue
        following = next(signs, "")
        assert following != "(", f"a variable in {text!r}"
        found += "$" if following in ("$", "") else f"${following}"
    return found


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    golden.check("kubernetes", name, kubernetes.export(deployment(name)))


@EVERY
def test_no_setting_is_forgotten(setting: str) -> None:
    assert not forgets(kubernetes.export, setting)


def _cases() -> Iterator[Deployment]:
    """One of each kind: without a GPU, with one of each maker that containers know."""
    yield deployment("demo-cpu")
    yield deployment("two-gpus")
    yield Deployment.of(plan("Qwen3-30B-A3B", "rx-7900-xtx"))


@pytest.mark.parametrize("release", RELEASES)
def test_the_schemas_accept_it(release: str) -> None:
    for case in _cases():
        for document in manifests(case):
            kubernetes_validate.validate(document, release, strict=True)


def test_the_schemas_refuse_what_is_wrong() -> None:
    document = only(base(), "Deployment")
    document["spec"]["template"]["spec"]["containers"][0]["arguments"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, RELEASES[-1], strict=True)


@pytest.mark.parametrize("path", HOSTILE)
def test_the_server_gets_its_arguments(path: str) -> None:
    case = with_file(base(), path)
    inside = f"/models/{path.rpartition('/')[2]}"
    wanted = server_arguments(case, model_path=inside, host="0.0.0.0", port=8080)
    assert [expanded(word) for word in server(case)["args"]] == wanted


@pytest.mark.parametrize("name", ["Qwen3.6-35B-A3B-Q4_K_M", "7B", "模型", "x" * 300, "-.-"])
def test_names_are_labels(name: str) -> None:
    """RFC 1123, and a letter first as Services before 1.34 want it."""
    for document in manifests(replace(base(), name=name)):
        found = document["metadata"]["name"]
        assert re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", found)
    assert safe_name(replace(base(), name="模型")) != safe_name(replace(base(), name="другая"))


def test_all_parts_belong_together() -> None:
    case = replace(deployment("one-gpu"), port=9000)
    template = only(case, "Deployment")["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert only(case, "Deployment")["spec"]["selector"]["matchLabels"] == labels
    service = only(case, "Service")["spec"]
    assert service["selector"] == labels
    (port,) = service["ports"]
    assert port["port"] == 9000
    assert port["targetPort"] in {one["name"] for one in server(case)["ports"]}
    claim = only(case, "PersistentVolumeClaim")["metadata"]["name"]
    for pod in (template["spec"], only(case, "Pod")["spec"]):
        names = {volume["name"]: volume for volume in pod["volumes"]}
        assert names["models"]["persistentVolumeClaim"]["claimName"] == claim
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == set(names)
    # The Pod that fills the claim gets no requests.
    assert not labels.items() <= only(case, "Pod")["metadata"].get("labels", {}).items()


def test_resources_are_the_planned_ones() -> None:
    case = deployment("two-gpus")
    resources = server(case)["resources"]
    asked = int(resources["requests"]["memory"].removesuffix("Mi")) << 20
    granted = int(resources["limits"]["memory"].removesuffix("Mi")) << 20
    assert case.host_bytes <= asked < case.host_bytes + (1 << 20)
    assert granted > asked
    assert resources["limits"]["nvidia.com/gpu"] == 2
    # All of a node's own cores are never free: the Pod would stay pending on the planned machine.
    assert 1 <= resources["requests"]["cpu"] <= case.settings.threads // 2
    assert "cpu" not in resources["limits"]
    claim = only(case, "PersistentVolumeClaim")["spec"]["resources"]["requests"]["storage"]
    assert int(claim.removesuffix("Gi")) << 30 > case.plan.model.tensor_bytes * 1.05


def test_the_start_may_take_as_long_as_the_model_is_large() -> None:
    case = deployment("experts-on-host")
    probe = server(case)["startupProbe"]
    seconds = probe["failureThreshold"] * probe["periodSeconds"]
    assert seconds > case.plan.model.tensor_bytes / 100e6
    assert only(case, "Deployment")["spec"]["progressDeadlineSeconds"] > seconds


def test_pods_keep_to_the_restricted_standard() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards"""
    for pod in (
        only(base(), "Deployment")["spec"]["template"]["spec"],
        only(base(), "Pod")["spec"],
    ):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {next(iter(set(volume) - {"name"})) for volume in pod["volumes"]} <= {
            "emptyDir",
            "persistentVolumeClaim",
        }
        for container in pod["containers"]:
            walls = container["securityContext"]
            assert walls["allowPrivilegeEscalation"] is False
            assert walls["readOnlyRootFilesystem"] is True
            assert walls["capabilities"] == {"drop": ["ALL"]}


def test_every_file_is_brought_into_the_claim() -> None:
    """`kubectl cp` would take `/srv/a` for a Pod's name."""
    case = with_file(base(), "/srv/a:b-00001-of-00002.gguf")
    files = ("/srv/a:b'-00001-of-00002.gguf", "https://hub.example/b-00002-of-00002.gguf")
    case = replace(case, plan=replace(case.plan, model=replace(case.plan.model, files=files)))
    use = kubernetes.export(case).use
    fill = f"{safe_name(case)}-fill"
    (copy,) = (step for step in use if " tee " in step)
    assert shlex.split(copy) == [
        *("kubectl", "exec", "--stdin", fill, "--"),
        *("tee", "/models/a:b'-00001-of-00002.gguf", "<", files[0], ">", "/dev/null"),
    ]
    curl = f"curl --location --fail --output /models/b-00002-of-00002.gguf {files[1]}"
    assert f"kubectl exec {fill} -- {curl}" in use


def test_the_key_is_there_before_the_server() -> None:
    use = kubernetes.export(base()).use
    (secret,) = (number for number, step in enumerate(use) if "create secret" in step)
    server = use.index(f"kubectl apply -f {safe_name(base())}.yaml")
    assert secret < server


def test_gpus_of_two_makers_are_refused() -> None:
    with pytest.raises(MoestroError, match="several makers"):
        kubernetes.export(Deployment.of(plan("Qwen3-30B-A3B", "rtx-4090, rx-7900-xtx")))
