"""Kubernetes: a Deployment of llama.cpp's server image, its Service, and a claim for the model.

A Deployment and not a StatefulSet: the server keeps nothing, and one is replaced by stopping it
first, because two do not fit the planned memory. A PersistentVolumeClaim and not a hostPath: the
security standards of clusters refuse the latter, and it would hold for a single node. The claim is
filled once, by a Pod that does nothing else.
"""

from __future__ import annotations

import shlex
from typing import Any

from moestro.export.allowance import memory_limit_bytes, start_seconds
from moestro.export.container import (
    MODELS,
    PORT,
    WHICH_IMAGE,
    arguments,
    image,
    not_in_a_container,
    safe_name,
    vendor,
)
from moestro.export.deployment import Deployment
from moestro.export.heading import heading
from moestro.export.location import is_address
from moestro.export.model_files import ModelFiles, inside
from moestro.export.target import Exported, File, Target, Unexpressed
from moestro.export.yaml_text import yaml_text
from moestro.units import GIB, MIB

_NOBODY = 65534
_PROBE_SECONDS = 10
_FILL_BYTES = 64 * MIB
_FILL_SECONDS = 24 * 3600
_LINUX = {"kubernetes.io/os": "linux"}
_RESOURCES = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu"}


def export(deployment: Deployment) -> Exported:
    ModelFiles.of(deployment)  # their names must not collide in the claim either
    name = safe_name(deployment)
    fill = f"{name}-fill"
    left = (*_for_the_cluster(deployment), *not_in_a_container(deployment))
    server = (_deployment(deployment), _service(deployment))
    about = (*heading(deployment, left), "", *WHICH_IMAGE, *_HALF)
    files = (
        File(f"{fill}.yaml", yaml_text(_claim(deployment), _fill(deployment), comments=_FILL)),
        File(f"{name}.yaml", yaml_text(*server, comments=about)),
    )
    return Exported(
        files,
        left,
        (
            f"kubectl apply -f {fill}.yaml",
            f"kubectl wait --for=condition=Ready --timeout=10m pod/{fill}",
            *(_copying(place, fill) for place in deployment.locations),
            "The sizes must be those of the originals:",
            f"kubectl exec {fill} -- ls -l {MODELS}",
            f"kubectl delete pod {fill}",
            "For a key that clients must give, before the server starts:",
            f"kubectl create secret generic {name} --from-literal=api-key=KEY",
            "And the server:",
            f"kubectl apply -f {name}.yaml",
            f"kubectl rollout status deployment/{name} --timeout={start_seconds(deployment)}s",
            f"Clients in its namespace call it at http://{name}:{deployment.port}/v1.",
        ),
    )


TARGET = Target("kubernetes", "Kubernetes: manifests with llama.cpp's server image", export)

_FILL = (
    "The claim for the model, and a Pod through which it is filled. It asks for the same GPUs as",
    "the server, so that a volume that belongs to one node is made where the server can run.",
)


_HALF = (
    "Half of the planned threads are asked for as processors: a node keeps some for itself, and a",
    "Pod that asks for all of them stays pending.",
)


def _copying(location: str, fill: str) -> str:
    """The command that brings one file into the claim. `kubectl cp` takes what stands before a
    colon in a path for a Pod."""
    there = shlex.quote(inside(MODELS, location))
    if is_address(location):
        curl = f"curl --location --fail --output {there} {shlex.quote(location)}"
        return f"kubectl exec {fill} -- {curl}"
    return f"kubectl exec --stdin {fill} -- tee {there} < {shlex.quote(location)} > /dev/null"


def _for_the_cluster(deployment: Deployment) -> tuple[Unexpressed, ...]:
    found = [
        Unexpressed(
            "host",
            deployment.host,
            "The Service answers the whole cluster, and nothing outside of it: a NetworkPolicy "
            "narrows that, an Ingress or kubectl port-forward widens it.",
        )
    ]
    names = dict.fromkeys(gpu.name for gpu in deployment.plan.hardware.gpus)
    if names:
        found.append(
            Unexpressed(
                "hardware",
                " and ".join(names),
                "A cluster counts GPUs and does not know their memory: pin the Pod to nodes with "
                "this one by a nodeSelector.",
            )
        )
    return tuple(found)


def _labels(deployment: Deployment) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "llama-server",
        "app.kubernetes.io/instance": safe_name(deployment),
    }


def _metadata(deployment: Deployment, name: str | None = None) -> dict[str, Any]:
    return {"name": name or safe_name(deployment), "labels": _labels(deployment)}


def _claim(deployment: Deployment) -> dict[str, Any]:
    """Room for the files: the tensors, a twentieth and 1 GiB for headers and what a file system
    keeps for itself."""
    tensors = deployment.plan.model.tensor_bytes
    gib = -(-(tensors + tensors // 20 + GIB) // GIB)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _metadata(deployment),
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": f"{gib}Gi"}},
        },
    }


def _fill(deployment: Deployment) -> dict[str, Any]:
    name = f"{safe_name(deployment)}-fill"
    small = {"memory": f"{_FILL_BYTES // MIB}Mi", "cpu": "100m"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        # Without the labels: the Service must not send requests here.
        "metadata": {"name": name},
        "spec": {
            **_pod(deployment),
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _FILL_SECONDS,
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "fill",
                    "image": image(deployment),
                    "command": ["sleep", "infinity"],
                    "resources": {"requests": small, **_limits(_gpus(deployment))},
                    "securityContext": _walls(),
                    "volumeMounts": _mounts(read_only=False),
                }
            ],
        },
    }


def _deployment(deployment: Deployment) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(deployment),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "progressDeadlineSeconds": start_seconds(deployment) + 600,
            "selector": {"matchLabels": _labels(deployment)},
            "template": {
                "metadata": {"labels": _labels(deployment)},
                "spec": {
                    **_pod(deployment),
                    "terminationGracePeriodSeconds": 30,
                    "containers": [_server(deployment)],
                },
            },
        },
    }


def _pod(deployment: Deployment) -> dict[str, Any]:
    """What both Pods share."""
    spec: dict[str, Any] = {
        "nodeSelector": _LINUX,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {**_user(deployment), "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [
            {
                "name": "models",
                "persistentVolumeClaim": {"claimName": safe_name(deployment)},
            },
            {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
        ],
    }
    if resource := _RESOURCES.get(vendor(deployment) or ""):
        spec["tolerations"] = [{"key": resource, "operator": "Exists", "effect": "NoSchedule"}]
    return spec


def _user(deployment: Deployment) -> dict[str, Any]:
    if vendor(deployment) == "amd":
        # The devices belong to root, and to groups whose numbers differ between nodes.
        return {"runAsUser": 0, "fsGroup": _NOBODY}
    return {
        "runAsNonRoot": True,
        "runAsUser": _NOBODY,
        "runAsGroup": _NOBODY,
        "fsGroup": _NOBODY,
        "fsGroupChangePolicy": "OnRootMismatch",
    }


def _walls() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _mounts(*, read_only: bool) -> list[dict[str, Any]]:
    models: dict[str, Any] = {"name": "models", "mountPath": MODELS}
    if read_only:
        models["readOnly"] = True
    return [models, {"name": "tmp", "mountPath": "/tmp"}]


def _server(deployment: Deployment) -> dict[str, Any]:
    secret = {"name": safe_name(deployment), "key": "api-key", "optional": True}
    return {
        "name": "llama-server",
        "image": image(deployment),
        "args": [_literal(argument) for argument in arguments(deployment)],
        "env": [{"name": "LLAMA_API_KEY", "valueFrom": {"secretKeyRef": secret}}],
        "ports": [{"name": "http", "containerPort": PORT}],
        "resources": _resources(deployment),
        "startupProbe": _probe(failures=-(-start_seconds(deployment) // _PROBE_SECONDS)),
        "readinessProbe": _probe(failures=3),
        # Health is answered beside the engine, also while it computes.
        "livenessProbe": _probe(failures=12),
        "securityContext": _walls(),
        "volumeMounts": _mounts(read_only=True),
    }


def _literal(text: str) -> str:
    """`text` without anything that Kubernetes would replace: `$$` stands for `$`."""
    return text.replace("$", "$$")


def _resources(deployment: Deployment) -> dict[str, Any]:
    """The planned memory is asked for, and a little more granted. Some processors are asked for and
    none limited: a limit makes the engine's threads wait for one another."""
    host_mib = -(-deployment.host_bytes // MIB)
    limits: dict[str, Any] = dict(_gpus(deployment))
    limit_bytes = memory_limit_bytes(deployment)
    if limit_bytes is not None:
        limits["memory"] = f"{limit_bytes // MIB}Mi"
    requests = {"cpu": max(deployment.settings.threads // 2, 1), "memory": f"{host_mib}Mi"}
    return {"requests": requests, **_limits(limits)}


def _limits(limits: dict[str, Any]) -> dict[str, Any]:
    return {"limits": limits} if limits else {}


def _gpus(deployment: Deployment) -> dict[str, int]:
    resource = _RESOURCES.get(vendor(deployment) or "")
    return {} if resource is None else {resource: deployment.gpus}


def _probe(*, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": "/health", "port": "http"},
        "periodSeconds": _PROBE_SECONDS,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _service(deployment: Deployment) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(deployment),
        "spec": {
            "selector": _labels(deployment),
            "ports": [{"name": "http", "port": deployment.port, "targetPort": "http"}],
        },
    }
