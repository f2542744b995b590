"""PCI Express: generation and lanes against the card's own best.

NVML's maximum is that of card and slot together, so a slot with too few lanes looks fine there; the
card's own best is what its PCI configuration says (`max_link_*` in `/sys`). The generation now is
no measure: an idle card saves power and runs at the lowest.
"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.chassis import is_notebook
from moestro.doctor.check import Check, ok, unknown
from moestro.doctor.gpus import CaseGpu, gpus_of
from moestro.doctor.virtual import is_virtual
from moestro.findings import Finding, Severity
from moestro.hardware.bandwidth import PCIE_GENERATIONS, pcie_bandwidth
from moestro.units import format_bandwidth

_BUSY = 0.5
_GOOD_GENERATION = 4
"""Where a card could do more, the slot still is what the field's checklist asks for."""


def _run(case: Case) -> Iterator[Finding]:
    for found in gpus_of(case):
        if not found.gpu.shared:  # on the processor's own fabric there is no slot
            yield from _look(case, found)


def _look(case: Case, found: CaseGpu) -> Iterator[Finding]:
    card = found.state.link if found.state is not None else None
    slot = found.gpu.link  # as the driver has it: the best of card and slot together
    width = (card and card.width) or (slot and slot.width)
    best_width = (card and card.max_width) or (slot and slot.max_width)
    generation = (slot and slot.max_generation) or (card and card.max_generation)
    best_generation = (card and card.max_generation) or (slot and slot.max_generation)
    if not (width and best_width and generation and best_generation):
        yield unknown(
            "pcie-link-unknown",
            f"{found.name}: nothing tells what link it runs on",
            None,
            "Run this where /sys shows the card (a container may hide it), or read the lines of "
            "“Link Width” in nvidia-smi -q.",
        )
        return
    now = card.generation if card is not None else None
    busy = found.state.busy if found.state is not None else None
    slowed = now is not None and busy is not None and busy >= _BUSY and now < generation
    loaded = now if slowed and now is not None else generation
    evidence = (
        f"runs at {_link(loaded, width)}; the card can do {_link(best_generation, best_width)}"
    )
    if width == best_width and loaded == best_generation:
        if card is None or card.max_width is None:
            yield unknown(
                "pcie-link-unknown",
                f"{found.name}: the card's own best is unknown",
                f"card and slot together run at {_link(loaded, width)}",
                "Run this where /sys shows the card (a container may hide it), or compare with the "
                "card's data sheet.",
            )
        else:
            yield ok("pcie-link", f"{found.name} runs on all its lanes", _link(loaded, width))
        return
    if is_virtual(case.host):
        yield unknown(
            "pcie-link-unknown",
            f"{found.name}: a virtual machine does not show the card's real link",
            evidence,
            "Look at it on the host: sudo lspci -vv, lines LnkCap and LnkSta.",
        )
        return
    cost = _cost(case)
    if width < best_width:
        notebook = is_notebook(case.host)
        yield Finding(
            Severity.INFO if notebook else Severity.WARN,
            "pcie-width-reduced",
            f"{found.name} runs on {width} of its {best_width} lanes",
            f"{evidence}. {cost}",
            "Nothing can be done: a notebook's lanes are soldered, and many have fewer than the "
            "chip could use."
            if notebook
            else "Put the card into the slot that is wired for all its lanes (mostly the one next "
            "to the processor), without a riser, and look for a second slot or an M.2 disk that "
            "shares its lanes.",
        )
    if slowed:
        yield Finding(
            Severity.WARN,
            "pcie-generation-reduced",
            f"{found.name} runs at PCIe {now}.0 although it works",
            f"{evidence}. {cost}",
            "Set the slot's speed to Auto or to the card's generation in the firmware; a riser "
            "that is made for an older generation forces this too.",
        )
    elif loaded < best_generation:
        good = loaded >= _GOOD_GENERATION
        yield Finding(
            Severity.INFO if good else Severity.WARN,
            "pcie-generation-reduced",
            f"{found.name} could do PCIe {best_generation}.0, its slot does {loaded}.0",
            f"{evidence}. {cost}",
            "Set the slot's speed to Auto in the firmware, or use a slot of the card's "
            "generation; an older board stays so.",
        )


def _link(generation: int, width: int) -> str:
    name = f"PCIe {generation}.0 x{width}"
    if generation not in PCIE_GENERATIONS:
        return name
    rate = pcie_bandwidth(generation, width).bytes_per_second
    return f"{name}, {format_bandwidth(rate)} from host to card"


def _cost(case: Case) -> str:
    if case.plan is None:
        return "It costs most where experts stay in host memory"
    layers = case.plan.settings.cpu_expert_layers
    if layers:
        return (
            f"The plan keeps the experts of {layers} layers in host memory: reading prompts "
            "copies them over this link"
        )
    return "The plan keeps all experts on the GPU: loading the model takes longer, little else"


CHECK = Check("pcie-link", "machine", "Do the GPUs have all the lanes they could use?", _run)
