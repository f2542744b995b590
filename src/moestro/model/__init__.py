"""What is this model file? Reads headers, never weights, and knows nothing of hardware."""

from moestro.model.cache import KvStore, Layer, LayerKind
from moestro.model.reading import read_model
from moestro.model.reference import (
    Demo,
    Folder,
    HubRef,
    LocalFile,
    Reference,
    Url,
    parse_reference,
)
from moestro.model.roles import Role
from moestro.model.spec import Experts, ModelFile, ModelSpec, Projector, TensorInfo

__all__ = [
    "Demo",
    "Experts",
    "Folder",
    "HubRef",
    "KvStore",
    "Layer",
    "LayerKind",
    "LocalFile",
    "ModelFile",
    "ModelSpec",
    "Projector",
    "Reference",
    "Role",
    "TensorInfo",
    "Url",
    "parse_reference",
    "read_model",
]
