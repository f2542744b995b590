from __future__ import annotations

import ctypes

import pytest

from moestro.engine.llama_cpp import backend_check
from moestro.engine.llama_cpp.abi import open_library
from moestro.engine.llama_cpp.backend_structs import Tensor
from moestro.errors import EngineMismatch


def test_the_installed_engine_passes():
    backend_check.check_backend_structs(open_library())


def test_another_version_of_back_ends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backend_check, "API_VERSION", 4)
    with pytest.raises(EngineMismatch, match="the version of its back ends"):
        backend_check.check_backend_structs(open_library())


def test_a_field_that_moved(monkeypatch: pytest.MonkeyPatch):
    class Moved(ctypes.Structure):
        _fields_ = [("new", ctypes.c_int64), *Tensor._fields_]

    monkeypatch.setattr(backend_check, "Tensor", Moved)
    with pytest.raises(EngineMismatch, match="a tensor"):
        backend_check.check_backend_structs(open_library())
