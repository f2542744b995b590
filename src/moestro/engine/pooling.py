"""Whether a model's file says how the vectors of its tokens become one of a text."""

from __future__ import annotations

from pathlib import Path

from moestro.model.gguf import read_gguf_header
from moestro.model.source import FileSource


def names_pooling(model: Path) -> bool:
    """Language models do not; models that are made for embeddings do.

    Raises:
        MoestroError: the file cannot be read.
    """
    with FileSource(model) as source:
        metadata = read_gguf_header(source).metadata
    return f"{metadata.get('general.architecture')}.pooling_type" in metadata
