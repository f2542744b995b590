"""The checklist that goes round in the field, line by line, and what answers each line."""

from __future__ import annotations

from dataclasses import dataclass

MODES = "Failure modes"
HARDWARE = "Hardware"
QUANTIZATION = "Quantization"
RUNTIME = "Settings"
GROUPS = (MODES, HARDWARE, QUANTIZATION, RUNTIME)


@dataclass(frozen=True, slots=True)
class Advice:
    """`advice` is what the field says, in short; `checks` answer it, and `setups` (names of broken
    ones) show that they do. `truth` is what is true of it, or why it is stale."""

    group: str
    advice: str
    checks: tuple[str, ...]
    setups: tuple[str, ...]
    truth: str


ADVICE: tuple[Advice, ...] = (
    Advice(
        MODES,
        "experts that do not fit the GPU are swapped over PCIe, token by token",
        ("plan-fits", "pcie-link", "disk"),
        ("weights-beyond-ram", "pcie-x8", "model-on-network"),
        "While an answer is written, experts in host memory are computed by the processor; nothing "
        "is swapped. The link is used to read long prompts. What does stop a model are weights "
        "beyond main memory: page faults from the disk.",
    ),
    Advice(
        MODES,
        "a quantization makes the router choose the same experts always",
        ("router-precision", "low-bit", "verdict"),
        ("router-4-bits", "experts-2-bits", "verify-failed"),
        "llama.cpp quantizes no router, but other tools do. Quantized experts move the router's "
        "input, and with it some choices: `moestro verify` measures how many.",
    ),
    Advice(
        MODES,
        "memory fragments over hours until the service dies",
        ("bounded-caches", "soak"),
        ("endless-prompt-cache", "growth"),
        "Mostly it is the prompt cache (8 GiB if nobody bounds it) and context checkpoints (no "
        "bound "
        "in bytes): both are bounded in a plan. `doctor --soak` sees what grows beyond that. "
        "“Turn flash attention on” is stale: it is on where it can be.",
    ),
    Advice(
        MODES,
        "agents that chain calls get slow",
        ("agent-step", "re-prefill", "template-right"),
        ("slow-tool-loop", "no-checkpoints", "no-checkpoints-rewriting-template"),
        "Mostly the prompt is read again: recurrent layers cannot go back without a checkpoint, "
        "and "
        "some templates rewrite earlier turns. A smaller model for tools is to be measured, not "
        "assumed.",
    ),
    Advice(
        HARDWARE,
        "GPU memory of at least parameters × a factor of the quantization, and the KV cache",
        ("plan-fits", "container-memory", "gpu-tenants"),
        ("gpu-too-small", "small-container", "gpu-tenant"),
        "A label says little: the plan sums the file's tensors, knows each architecture's cache, "
        "and "
        "has the engine lay its buffers out. What other programs hold counts too.",
    ),
    Advice(
        HARDWARE,
        "PCIe 4.0 × 16, not a riser with 8 lanes",
        ("pcie-link",),
        ("pcie-x8", "pcie-old-slot", "pcie-slow-under-load"),
        "It matters where experts stay in host memory and prompts are long. An idle card drops to "
        "PCIe 1.0 to save power, which is no fault.",
    ),
    Advice(
        HARDWARE,
        "64 GB of RAM or more if layers stay on the CPU",
        ("plan-fits", "memory-channels", "numa"),
        ("weights-beyond-ram", "memory-one-module", "numa-balancing"),
        "As much as the plan says, no fixed number; and then its bandwidth decides: one channel of "
        "two halves the speed.",
    ),
    Advice(
        HARDWARE,
        "flash attention 2, so an Ampere card or newer",
        ("gpu-support",),
        ("gpu-too-old", "gpu-without-tensor-cores", "gpu-driver-too-old"),
        "Stale: llama.cpp has kernels of its own, for older cards too; without tensor cores they "
        "are "
        "slower. What counts is whether the engine's build holds code for the card and its driver.",
    ),
    Advice(
        HARDWARE,
        "cooling for a load of 80 % and more that lasts",
        ("gpu-throttle", "cpu-throttle", "soak"),
        ("gpu-hot", "cpu-hot", "heat"),
        "True, and seen only under load: `doctor --soak 5m`.",
    ),
    Advice(
        QUANTIZATION,
        "Q4_K_M is balanced, Q6_K nearly lossless, Q4_K_S acceptable for reasoning",
        ("verdict",),
        ("verify-failed", "verify-warned"),
        "A label names a recipe, not a quality: files of one label differ by whoever made them. "
        "`moestro verify` compares the file at hand with what it was made from.",
    ),
    Advice(
        QUANTIZATION,
        "Q2_K risks the routing of a mixture of experts",
        ("low-bit",),
        ("experts-2-bits",),
        "True below about 3 bits per weight of the experts, whatever the label.",
    ),
    Advice(
        QUANTIZATION,
        "run a quality benchmark after each change of quantization",
        ("verdict",),
        ("verify-failed",),
        "`moestro verify`, a minute instead of a benchmark's hours; `up` refuses what it failed.",
    ),
    Advice(
        RUNTIME,
        "--n-gpu-layers -1",
        ("gpu-support", "plan-fits"),
        ("engine-for-processors", "gpu-too-small"),
        "Stale: engines take what fits by themselves, and on a build without GPU support the flag "
        "does nothing, silently. The plan states the number, and which experts stay behind.",
    ),
    Advice(
        RUNTIME,
        "--flash-attn saves a fifth of the GPU's memory",
        (),
        (),
        "Stale: the option takes on, off or auto now, and auto is the default. How much it saves "
        "depends on the context.",
    ),
    Advice(
        RUNTIME,
        "--ctx-size 8192",
        ("context-length", "plan-fits"),
        ("context-too-long", "gpu-too-small"),
        "The plan takes what costs little and says what more would cost; llama-server divides the "
        "number by its streams.",
    ),
    Advice(
        RUNTIME,
        "--batch-size 512, tuned for the GPU",
        (),
        (),
        "Stale: memory and speed of reading prompts follow --ubatch-size; the batch only groups "
        "those. The plan weighs several.",
    ),
    Advice(
        RUNTIME,
        "--mlock keeps weights in RAM",
        ("memory-lock", "swap"),
        ("cache-in-swap", "swapping-host"),
        "Stale: --load-mode replaced it. Mapped weights are never swapped, they are dropped and "
        "read "
        "again where memory is short: plan so that it is not.",
    ),
    Advice(
        RUNTIME,
        "--numa on hosts with several sockets",
        ("numa",),
        ("numa-balancing", "numa-split"),
        "Stale as written: it takes a type (distribute, isolate or numactl), and the kernel's own "
        "page moving has to be off first.",
    ),
)
