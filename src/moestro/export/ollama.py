"""Ollama: a Modelfile, and the environment of `ollama serve`.

Since release 0.30 Ollama runs models with llama-server. It gives it the flags that come from its
own settings, and its whole environment, so `LLAMA_ARG_…` variables say the rest (`startLlamaServer`
in its `llm/llama_server.go`; a flag wins over a variable). Older ones ran models themselves and
read only `OLLAMA_…`. The environment holds for every model that this Ollama serves.
"""

from __future__ import annotations

import re
import shlex

from moestro.export.address import host_port, url
from moestro.export.allowance import start_seconds
from moestro.export.deployment import Deployment
from moestro.export.flags import flags, own_engine
from moestro.export.heading import comment, heading
from moestro.export.location import file_name, is_address
from moestro.export.target import Exported, File, Target, Unexpressed
from moestro.units import format_bytes

MODELFILE = "Modelfile"
ENVIRONMENT = "ollama.env"
_SERVICE = "/etc/systemd/system/ollama.service.d"

ONE_AT_A_TIME = frozenset(
    (
        "mllama", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "qwen3next", "lfm2", "lfm2moe",
        "nemotron_h", "nemotron_h_moe", "nemotron_h_omni",
    )
)  # fmt: skip
"""Architectures that Ollama gives one stream, whatever it is told (`Scheduler.load`)."""

_VARIABLES = {
    "--kv-unified": "LLAMA_ARG_KV_UNIFIED",
    "--kv-offload": "LLAMA_ARG_KV_OFFLOAD",
    "--cache-ram": "LLAMA_ARG_CACHE_RAM",
    "--cache-idle-slots": "LLAMA_ARG_CACHE_IDLE_SLOTS",
    "--ctx-checkpoints": "LLAMA_ARG_CTX_CHECKPOINTS",
    "--fit": "LLAMA_ARG_FIT",
    "--split-mode": "LLAMA_ARG_SPLIT_MODE",
    "--tensor-split": "LLAMA_ARG_TENSOR_SPLIT",
    "--n-cpu-moe": "LLAMA_ARG_N_CPU_MOE",
    "--repack": "LLAMA_ARG_REPACK",
    "--spec-draft-p-min": "LLAMA_ARG_SPEC_DRAFT_P_MIN",
}
"""Flags that Ollama itself never gives to llama-server."""


def export(deployment: Deployment) -> Exported:
    left = _unexpressed(deployment)
    head = comment(heading(deployment, left))
    name = model_tag(deployment)
    return Exported(
        files=(
            File(MODELFILE, f"{head}\n{_modelfile(deployment)}"),
            File(ENVIRONMENT, f"{comment(heading(deployment))}\n{_environment(deployment)}"),
        ),
        unexpressed=left,
        use=(
            "In a shell of its own, which it keeps:",
            f"set -a; . ./{ENVIRONMENT}; ollama serve",
            "Or for the service that Ollama's installer made:",
            f"sudo install -D --mode 644 {ENVIRONMENT} /etc/ollama/{ENVIRONMENT}",
            f"sudo install -d {_SERVICE}",
            f"printf '[Service]\\nEnvironmentFile=/etc/ollama/{ENVIRONMENT}\\n' "
            f"| sudo tee {_SERVICE}/plan.conf",
            "sudo systemctl daemon-reload && sudo systemctl restart ollama",
            "Then, in another shell:",
            f"set -a; . ./{ENVIRONMENT}; ollama create {name} -f {MODELFILE}",
            f"Clients call it at {url(deployment)}/v1, by the name {name}.",
        ),
    )


def model_tag(deployment: Deployment) -> str:
    """The model's name as Ollama allows them: letters, digits and `_-.`, at most 80."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", deployment.name)[:80]
    return plain.strip("-.") or "model"


def _modelfile(deployment: Deployment) -> str:
    settings, projector = deployment.settings, deployment.plan.model.projector
    lines = [f"FROM {_path(deployment.model_path)}"]
    if projector is not None:
        lines.append(f"FROM {_path(projector)}")
    lines += [
        f"PARAMETER num_ctx {settings.context}",
        f"PARAMETER num_batch {_batch(deployment)}",
        f"PARAMETER num_gpu {_gpu_layers(deployment)}",
        f"PARAMETER num_thread {settings.threads}",
        # 0 switches off the MTP that a model may have.
        f"PARAMETER draft_num_predict {settings.mtp_depth}",
    ]
    return "\n".join(lines) + "\n"


def _environment(deployment: Deployment) -> str:
    settings = deployment.settings
    found = {
        "OLLAMA_NUM_PARALLEL": str(settings.parallel),
        # The plan gives all memory to one model, for good.
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_HOST": host_port(deployment),
        "OLLAMA_LOAD_TIMEOUT": f"{start_seconds(deployment)}s",
    }
    if settings.flash_attention != "auto":
        found["OLLAMA_FLASH_ATTENTION"] = "1" if settings.flash_attention == "on" else "0"
    if settings.cache_type_k == settings.cache_type_v:
        found["OLLAMA_KV_CACHE_TYPE"] = settings.cache_type_k
    if deployment.gpus > 1:
        found["OLLAMA_SCHED_SPREAD"] = "1"
    return (
        _assignments(found)
        + "\n# Read by the llama-server that Ollama 0.30 and newer start, for each of its models.\n"
        + _assignments(_variables(deployment))
    )


def _variables(deployment: Deployment) -> dict[str, str]:
    settings = deployment.settings
    found: dict[str, str] = {}
    if settings.cache_type_k != settings.cache_type_v:
        found["LLAMA_ARG_CACHE_TYPE_K"] = settings.cache_type_k
        found["LLAMA_ARG_CACHE_TYPE_V"] = settings.cache_type_v
    for name, value in flags(deployment):
        positive = name.replace("--no-", "--", 1)
        if positive in _VARIABLES:
            found[_VARIABLES[positive]] = value or ("true" if positive == name else "false")
    return found


def _assignments(variables: dict[str, str]) -> str:
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())


def _path(path: str) -> str:
    """A file in a Modelfile. Without a slash in front it would be the name of a model; quotes go
    from the first sign of a line to its last, whatever is between them."""
    relative = not path.startswith(("/", "~")) and not is_address(path)
    path = f"./{path}" if relative else path
    return f'"{path}"' if path != path.strip() else path


def _batch(deployment: Deployment) -> int:
    """Ollama has one number for what llama-server has two for; the memory goes by the smaller."""
    settings = deployment.settings
    return max(settings.ubatch, settings.outputs)


def _gpu_layers(deployment: Deployment) -> int:
    if not deployment.gpus:
        return 0
    layers = deployment.settings.gpu_layers
    return deployment.plan.model.block_count + 1 if layers is None else layers


def _unexpressed(deployment: Deployment) -> tuple[Unexpressed, ...]:
    settings, model = deployment.settings, deployment.plan.model
    batch = settings.tokens_at_once(accelerated=deployment.gpus > 0)
    found: list[Unexpressed] = [*own_engine(deployment, "Ollama")]

    def left(setting: str, planned: str, instead: str) -> None:
        found.append(Unexpressed(setting, planned, instead))

    if is_address(deployment.model_path):
        left("model", deployment.model_path, "Ollama reads files: download it first.")
    if len(model.files) > 1:
        left(
            "model",
            f"{len(model.files)} files",
            "Ollama reads models of one file. Join them: llama-gguf-split --merge "
            f"{file_name(deployment.model_path)} OUT.gguf",
        )
    if settings.parallel > 1 and model.architecture in ONE_AT_A_TIME:
        left(
            "parallel",
            str(settings.parallel),
            f"Ollama answers one request at a time with {model.architecture} models; the others "
            "wait.",
        )
    if model.context_length is not None and settings.context > model.context_length:
        left(
            "context",
            f"{settings.context:,}",
            f"Ollama stops at what the model was trained for, {model.context_length:,}.",
        )
    if settings.ubatch != _batch(deployment):
        left("ubatch", str(settings.ubatch), f"Ollama's one batch size is {_batch(deployment)}.")
    if batch != _batch(deployment):
        left(
            "batch",
            f"{batch:,}",
            f"Ollama has one size for both batches, {_batch(deployment):,}, and reads prompts in "
            "steps of it.",
        )
    if settings.threads_batch not in (None, settings.threads):
        left(
            "threads_batch",
            str(settings.threads_batch),
            f"Ollama has one number of threads, {settings.threads}.",
        )
    if settings.load_mode != "auto":
        left("load_mode", settings.load_mode, "Ollama maps the file, or not, as it likes.")
    if settings.ngram != "off":
        left("ngram", settings.ngram, "Ollama drafts with MTP or not at all.")
    if deployment.gpus and settings.expert_cache_bytes:
        left(
            "expert_cache_bytes",
            format_bytes(settings.expert_cache_bytes),
            "the llama.cpp in Ollama does not know it: every expert in main memory is computed "
            "there.",
        )
    if model_tag(deployment) != deployment.name:
        left("name", deployment.name, f"Ollama calls the model {model_tag(deployment)}.")
    return tuple(found)


TARGET = Target("ollama", "Ollama: Modelfile and environment", export)
