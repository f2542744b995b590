"""Integrated GPUs beside discrete ones: the engine leaves them alone, so the inventory does too."""

from __future__ import annotations

from collections.abc import Iterable

from moestro.findings import Finding, Severity
from moestro.hardware.gpu import Gpu


def used_gpus(gpus: Iterable[Gpu]) -> tuple[tuple[Gpu, ...], tuple[Finding, ...]]:
    """The GPUs that models run on, and a finding that names those left out.

    llama.cpp runs a model on integrated GPUs only where there is no discrete one
    (`llama_prepare_model_devices`).
    """
    gpus = tuple(gpus)
    discrete = tuple(gpu for gpu in gpus if not gpu.shared)
    if not discrete or len(discrete) == len(gpus):
        return gpus, ()
    finding = Finding(
        Severity.INFO,
        "gpu-integrated-left-out",
        "An integrated GPU is left out: the engine uses none where there is a discrete one",
        ", ".join(gpu.name for gpu in gpus if gpu.shared),
    )
    return discrete, (finding,)
