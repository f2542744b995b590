"""The set-up's decisions, with every command it would run replaced by a record of it."""

from __future__ import annotations

import importlib.util
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from moestro.engine.llama_cpp.builds import Build

SCRIPT = Path(__file__).parents[1] / "scripts" / "setup.py"
CPU = Build("cpu", None, "No GPU.")
CUDA = Build("cu128", "https://example.invalid/whl/cu128", "A GPU.")


class Shell:
    """Stands in for `run`: everything succeeds but what `fails` picks out."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.fails: Callable[[str], bool] = lambda command: False

    def __call__(self, *command: object, environment: object = None):
        text = " ".join(str(word) for word in command)
        self.commands.append(text)
        code = 1 if self.fails(text) else 0
        return subprocess.CompletedProcess(text, code, "", "boom" if code else "")

    def ran(self, *words: str) -> list[str]:
        return [line for line in self.commands if all(word in line for word in words)]


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))  # the script changes sys.path; this restores it
    spec = importlib.util.spec_from_file_location("moestro_setup", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    venv = tmp_path / ".venv"
    venv.mkdir()
    monkeypatch.setattr(module, "VENV", venv)
    monkeypatch.setattr(module, "VENV_PYTHON", venv / "bin" / "python")
    monkeypatch.setattr(module, "BUILD_RECORD", venv / "moestro-engine-build")
    return module


@pytest.fixture
def shell(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Shell:
    made = Shell()
    monkeypatch.setattr(setup, "run", made)
    return made


def test_a_working_environment_is_kept(setup: ModuleType, shell: Shell):
    setup.make_environment()
    assert len(shell.commands) == 1
    assert not shell.ran("-m venv")


def test_without_ensurepip_virtualenv_is_fetched(setup: ModuleType, shell: Shell):
    shell.fails = lambda command: "-m pip --version" in command or "-m venv" in command
    setup.make_environment()
    assert shell.ran("pip install", "--target", "virtualenv")
    assert "-m virtualenv" in shell.commands[-1]


def test_the_cpu_build_comes_with_the_project(setup: ModuleType, shell: Shell):
    assert setup.install_engine(CPU) == CPU
    assert shell.commands == []


def test_a_gpu_build_comes_from_its_index_once(
    setup: ModuleType, shell: Shell, capsys: pytest.CaptureFixture[str]
):
    assert setup.install_engine(CUDA) == CUDA
    (command,) = shell.commands
    assert f"--index-url {CUDA.index_url}" in command
    assert "cu128 build. A GPU." in capsys.readouterr().out
    setup.install_engine(CUDA)
    assert len(shell.commands) == 1


def test_an_index_out_of_reach_falls_back_to_the_cpu(
    setup: ModuleType, shell: Shell, capsys: pytest.CaptureFixture[str]
):
    shell.fails = lambda command: "--index-url" in command
    assert setup.install_engine(CUDA).kind == "cpu"
    assert "could not be fetched" in capsys.readouterr().out
    assert shell.ran("--force-reinstall", "xllamacpp==")[-1].count("--index-url") == 0


def test_a_build_that_cannot_be_loaded_falls_back_to_the_cpu(
    setup: ModuleType, shell: Shell, capsys: pytest.CaptureFixture[str]
):
    loads = iter([1, 0])
    shell.fails = lambda command: "open_library" in command and next(loads) == 1
    setup.check_engine(CUDA)
    assert "cannot be loaded" in capsys.readouterr().out
    assert shell.ran("--force-reinstall")


def test_a_gpu_that_went_away(setup: ModuleType, shell: Shell):
    setup.install_engine(CUDA)
    setup.install_engine(CPU)
    assert "--force-reinstall" in shell.commands[-1]
    assert "--index-url" not in shell.commands[-1]


def test_a_failure_is_a_sentence(
    setup: ModuleType, shell: Shell, capsys: pytest.CaptureFixture[str]
):
    shell.fails = lambda command: "--editable" in command
    assert setup.main([]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: pip failed; is the network there?\n  boom")
    assert not (setup.VENV / ".ready").exists()


def test_ctrl_c_is_a_sentence(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupted(*command: object, environment: object = None):
        raise KeyboardInterrupt

    monkeypatch.setattr(setup, "run", interrupted)
    assert setup.main([]) == 130
    assert "Interrupted: the set-up is not complete." in capsys.readouterr().err
    assert not (setup.VENV / ".ready").exists()


def test_the_source_distribution_holds_the_set_up():
    """It holds the Makefile, which runs this script."""
    project = tomllib.loads((SCRIPT.parents[1] / "pyproject.toml").read_text())
    held = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert {"Makefile", "scripts"} <= set(held)


def test_stamps(setup: ModuleType, shell: Shell):
    assert setup.main([]) == 0
    assert (setup.VENV / ".ready").exists()
    assert not (setup.VENV / ".ready-dev").exists()
    assert setup.main(["--dev"]) == 0
    assert (setup.VENV / ".ready-dev").exists()
    assert shell.ran("--editable", "[dev]")
