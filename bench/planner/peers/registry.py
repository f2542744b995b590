"""The peers, their pinned versions, and what each says it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ADAPTERS = Path(__file__).with_name("adapters")


@dataclass(frozen=True)
class Peer:
    """`requirement` is what pip installs; `reads` is what it works from."""

    name: str
    requirement: str
    adapter: str
    reads: str

    @property
    def path(self) -> Path:
        return ADAPTERS / f"{self.adapter}.py"


PEERS = {
    peer.name: peer
    for peer in (
        Peer("llmfit", "llmfit==1.1.17", "llmfit", "its own model database"),
        Peer("moe-fit", "moe-fit==0.1.0", "moe_fit", "the GGUF"),
        Peer("modelinfo-cli", "modelinfo-cli==1.4.4", "modelinfo_cli", "the GGUF"),
        Peer("hf-mem", "hf-mem==0.5.6", "hf_mem", "the GGUF, on the hub"),
        Peer("ggufit", "ggufit==0.3.0", "ggufit", "its own catalogue, or config.json"),
        Peer("owist", "owist-modelfile-lint==0.2.1", "owist", "the GGUF"),
        Peer("whichllm", "whichllm==0.5.21", "whichllm", "the hub's metadata"),
        Peer("ridgepoint", "ridgepoint==0.1.2", "ridgepoint", "config.json"),
        Peer("kvfit", "kvfit==0.3.0", "kvfit", "config.json"),
        Peer("vramscout", "vramscout==0.7.0", "vramscout", "config.json"),
        Peer("vllm-wizard", "vllm-wizard==0.2.0", "vllm_wizard", "config.json"),
    )
}

# Looked at and left out, with the reason.
LEFT_OUT = {
    "fituna 0.3.6": "measures on the machine it runs on; no forecast",
    "llama-optimus 0.1.9, llama-dyno 1.5.0": "measure; no forecast",
    "fitlab 0.1.1": "a registry of its own over the network; nothing of a file",
    "canirunllm 0.1.4": "a web page's list; nothing of a file",
    "vramcalc 0.1.2": "Llama-like dense models in 16 bits only",
    "hf-vram-calc 1.0.9": "needs torch (5.6 GB installed); dense formula, 16 bits or whole bytes",
    "accelerate estimate-memory": "weights alone, from the hub; needs torch",
    "gguf-parser 0.1.1 (PyPI)": "prints a header; not the Go program of that name",
    "gguf-parser-go": "a Go program: in none of the package indexes that pip, npm or apt read",
}
