from __future__ import annotations

import ctypes
import tomllib
from pathlib import Path

import pytest

from moestro.engine.llama_cpp import abi, binding, version
from moestro.errors import EngineMismatch

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


def test_the_installed_engine_passes():
    library = abi.open_library()
    assert library.llama_version().startswith(b"0.6")


def test_pin_and_expectation_are_the_same_release():
    dependencies = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    assert f"{version.PACKAGE}=={version.EXPECTED_VERSION}" in dependencies


@pytest.mark.parametrize(
    "installed", [version.EXPECTED_VERSION, f"{version.EXPECTED_VERSION}+cu128"]
)
def test_expected_versions_pass(installed: str):
    version.check_version(installed)


@pytest.mark.parametrize("installed", ["2026.10.11550", "2026.10.115490", "0+unknown"])
def test_another_release_is_named_beside_the_expected_one(installed: str):
    with pytest.raises(EngineMismatch) as caught:
        version.check_version(installed)
    assert installed in caught.value.sentence
    assert version.EXPECTED_VERSION in caught.value.sentence
    assert caught.value.hint is not None
    assert version.EXPECTED_VERSION in caught.value.hint


def shifted(struct: ctypes.Structure) -> ctypes.Structure:
    """The same bytes, four places further on, as after a field was added in front."""
    return type(struct).from_buffer_copy(b"\0" * 4 + bytes(struct)[:-4])


def test_a_moved_layout_is_noticed():
    library = binding.load_library()
    model = library.llama_model_default_params()
    context = library.llama_context_default_params()
    with pytest.raises(EngineMismatch, match="another binary interface"):
        abi.check_structs(shifted(model), context, "9.9")
    with pytest.raises(EngineMismatch, match="another binary interface"):
        abi.check_structs(model, shifted(context), "9.9")


@pytest.mark.parametrize("field", ["n_batch", "n_ubatch", "type_k", "type_v", "swa_full"])
def test_one_changed_default_is_named(field: str):
    library = binding.load_library()
    context = library.llama_context_default_params()
    setattr(context, field, 7 if field != "swa_full" else False)
    with pytest.raises(EngineMismatch, match=field) as caught:
        abi.check_structs(library.llama_model_default_params(), context, "9.9")
    assert "9.9" in caught.value.sentence
    assert version.EXPECTED_VERSION in caught.value.sentence


def test_a_library_without_the_functions_is_a_mismatch(tmp_path: Path):
    other = tmp_path / "libnothing.so"
    other.write_bytes(b"\x7fELF not really")
    with pytest.raises(EngineMismatch, match="cannot be used"):
        binding.load_library(other)


def test_absent_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(version, "PACKAGE", "no-such-package-here")
    with pytest.raises(EngineMismatch, match="not installed"):
        version.installed_version()
