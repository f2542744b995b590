"""What the engine spends on choosing one token, timed on a vocabulary of random logits.

The chain is the server's default (`common_params_sampling`) without the samplers that its defaults
switch off: top-k 40, top-p 0.95, min-p 0.05, temperature 0.8. Before it, the server copies every
logit into a table of candidates; the copy of a finished table stands for that here.
"""

from __future__ import annotations

import ctypes
import random
import time
from ctypes import c_bool, c_float, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from typing import ClassVar


class _Candidate(ctypes.Structure):
    """`llama_token_data`."""

    _fields_: ClassVar = [("id", c_int32), ("logit", c_float), ("p", c_float)]


class _Candidates(ctypes.Structure):
    """`llama_token_data_array`."""

    _fields_: ClassVar = [
        ("data", ctypes.POINTER(_Candidate)),
        ("size", c_size_t),
        ("selected", c_int64),
        ("sorted", c_bool),
    ]


class _ChainParams(ctypes.Structure):
    """`llama_sampler_chain_params`."""

    _fields_: ClassVar = [("no_perf", c_bool)]


def sampling_seconds(library: ctypes.CDLL, vocabulary: int, repeats: int = 15) -> float:
    """The lower quartile of `repeats` choices from `vocabulary` tokens."""
    chain = _default_chain(library)
    source = random.Random(1)
    pristine = (_Candidate * vocabulary)()
    for index in range(vocabulary):
        pristine[index].id = index
        pristine[index].logit = source.gauss(0.0, 2.0)
    work = (_Candidate * vocabulary)()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        ctypes.memmove(work, pristine, ctypes.sizeof(work))
        candidates = _Candidates(work, vocabulary, -1, False)
        library.llama_sampler_apply(chain, ctypes.byref(candidates))
        times.append(time.perf_counter() - begun)
    library.llama_sampler_free(chain)
    return sorted(times)[repeats // 4]


def _default_chain(library: ctypes.CDLL) -> int:
    for name, result, arguments in (
        ("llama_sampler_chain_init", c_void_p, [_ChainParams]),
        ("llama_sampler_chain_add", None, [c_void_p, c_void_p]),
        ("llama_sampler_init_top_k", c_void_p, [c_int32]),
        ("llama_sampler_init_top_p", c_void_p, [c_float, c_size_t]),
        ("llama_sampler_init_min_p", c_void_p, [c_float, c_size_t]),
        ("llama_sampler_init_temp", c_void_p, [c_float]),
        ("llama_sampler_init_dist", c_void_p, [c_uint32]),
        ("llama_sampler_apply", None, [c_void_p, c_void_p]),
        ("llama_sampler_free", None, [c_void_p]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    chain: int = library.llama_sampler_chain_init(_ChainParams(True))
    for sampler in (
        library.llama_sampler_init_top_k(40),
        library.llama_sampler_init_top_p(0.95, 0),
        library.llama_sampler_init_min_p(0.05, 0),
        library.llama_sampler_init_temp(0.8),
        library.llama_sampler_init_dist(1),
    ):
        library.llama_sampler_chain_add(chain, sampler)
    return chain
