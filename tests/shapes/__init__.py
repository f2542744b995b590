"""Header-only models of true shapes: what a GGUF of a published model says, without its weights."""

from .published import PUBLISHED
from .shape import Shape, TensorShape, all_f32, mxfp4, q4_k_m
from .write import encode_header, typed_tensors, write_header, write_split

__all__ = [
    "PUBLISHED",
    "Shape",
    "TensorShape",
    "all_f32",
    "encode_header",
    "mxfp4",
    "q4_k_m",
    "typed_tensors",
    "write_header",
    "write_split",
]
