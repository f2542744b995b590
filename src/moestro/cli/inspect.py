"""`moestro inspect MODEL`: what a model file is made of."""

from __future__ import annotations

import json
from typing import Any

import click

from moestro.cli.resolve import resolve
from moestro.findings import any_failed
from moestro.model import ModelSpec, read_model


@click.command(name="inspect")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(model: str, as_json: bool) -> int:
    """Anatomy of a model: parameters, bytes by role, experts, MTP, cache cost.

    Only the header is read, also over the network. MODEL is a GGUF file (any part of a split one),
    a Hugging Face folder, hf:owner/repo[:quant], an http(s) address of a GGUF, or `demo`.
    """
    spec = read_model(resolve(model))
    if as_json:
        click.echo(json.dumps(to_json(spec), ensure_ascii=False))
    else:
        # Only people need rich, and it takes longer to import than most headers to read.
        from rich.console import Console

        from moestro.cli.anatomy import render

        render(spec, Console(highlight=False))
    return 1 if any_failed(spec.findings) else 0


def to_json(spec: ModelSpec) -> dict[str, Any]:
    """The object that `inspect --json` prints. Sizes are bytes; unknown is null."""
    rope = spec.rope_scaling
    return {
        "architecture": spec.architecture,
        "name": spec.name,
        "context_length": spec.context_length,
        "parameters": {"total": spec.parameters, "active": spec.parameters_active},
        "bytes": {
            "total": spec.tensor_bytes,
            **{str(role): size for role, size in spec.bytes_by_role.items()},
        },
        "experts": spec.experts.to_json() if spec.experts else None,
        "mtp": {"layers": spec.mtp_layers} if spec.mtp_layers else None,
        "cache": {
            "bytes_per_token": spec.cache_bytes_per_token,
            "window_bytes_per_sequence": spec.window_bytes_per_sequence,
            "recurrent_bytes_per_sequence": spec.recurrent_bytes_per_sequence,
        },
        "bytes_read_per_token": spec.bytes_read_per_token,
        "types": spec.bytes_by_type,
        "findings": [finding.to_json() for finding in spec.findings],
        "format": spec.format,
        "quantization": spec.quantization,
        "layers": {"count": spec.layer_count, "kinds": layer_kinds(spec)},
        "embedding_length": spec.embedding_length,
        "vocabulary": spec.vocabulary,
        "tied_embeddings": spec.tied_embeddings,
        "rope_scaling": None
        if rope is None
        else {
            "type": rope.kind,
            "factor": rope.factor,
            "original_context_length": rope.original_context,
        },
        "tokenizer": spec.tokenizer,
        "has_chat_template": spec.chat_template_bytes is not None,
        "projector": None
        if spec.projector is None
        else {"location": spec.projector.location, "size_bytes": spec.projector.size_bytes},
        "files": [
            {"location": file.location, "size_bytes": file.size_bytes, "tensors": file.tensors}
            for file in spec.files
        ],
        "tensors": len(spec.tensors),
        "transferred_bytes": spec.transferred_bytes,
    }


def layer_kinds(spec: ModelSpec) -> dict[str, int] | None:
    """How many trunk blocks attend fully, through a window, recurrently, …"""
    if spec.trunk_layers is None:
        return None
    kinds: dict[str, int] = {}
    for layer in spec.trunk_layers:
        kinds[str(layer.kind)] = kinds.get(str(layer.kind), 0) + 1
    return kinds
