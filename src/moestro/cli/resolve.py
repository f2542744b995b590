"""What MODEL means here: the demo model becomes the path of its file."""

from __future__ import annotations

from moestro.model import Demo, LocalFile, Reference, parse_reference


def resolve(text: str) -> Reference:
    """Raises UsageError for an empty or malformed reference."""
    reference = parse_reference(text)
    if isinstance(reference, Demo):
        from moestro.demo import model_path

        return LocalFile(model_path())
    return reference
