"""The front door: help, exit statuses, errors as sentences."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from moestro.cli import main as front
from moestro.errors import ModelNotFound, MoestroError, UsageError


@pytest.fixture
def failing_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `inspect` raise what its argument names."""

    @click.command()
    @click.argument("kind")
    @click.option("--json", "as_json", is_flag=True)
    def command(kind: str, as_json: bool) -> int:
        if kind == "model":
            raise ModelNotFound("There is no file at x.gguf.", hint="Check the path.")
        if kind == "usage":
            raise UsageError("These two options contradict each other.")
        if kind == "interrupt":
            raise KeyboardInterrupt
        return 1 if kind == "finding" else 0

    monkeypatch.setattr(front.VerbGroup, "get_command", lambda self, context, name: command)


@pytest.mark.parametrize(
    ("kind", "status"),
    [("fine", 0), ("finding", 1), ("model", 1), ("usage", 2), ("interrupt", 130)],
)
@pytest.mark.usefixtures("failing_verb")
def test_exit_status(kind: str, status: int) -> None:
    assert front.main(["inspect", kind]) == status


@pytest.mark.usefixtures("failing_verb")
def test_an_error_is_a_sentence_and_a_hint_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    front.main(["inspect", "model"])
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: There is no file at x.gguf.\nhint: Check the path.\n"


@pytest.mark.usefixtures("failing_verb")
def test_an_error_is_one_object_on_stdout_when_json_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    front.main(["inspect", "model", "--json"])
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {
        "error": {
            "code": "model-not-found",
            "message": "There is no file at x.gguf.",
            "hint": "Check the path.",
        }
    }


def test_unknown_verb_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(["frobnicate"]) == 2
    assert "frobnicate" in capsys.readouterr().err


@pytest.mark.parametrize("verb", list(front.VERBS))
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main([verb, "--help"]) == 0
    assert "Usage: moestro " + verb in capsys.readouterr().out


def test_help_loads_no_heavy_module() -> None:
    """`moestro --help` must stay instant: what takes long to import waits for its verb."""
    heavy = (
        "rich", "aiohttp", "starlette", "uvicorn", "huggingface_hub", "xllamacpp", "psutil",
        "numpy",
    )  # fmt: skip
    program = (
        "import sys; from moestro.cli.main import main; main(['--help']); "
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr.strip() == "[]"
    assert "inspect" in done.stdout


def test_only_verify_needs_numpy() -> None:
    """A verdict is looked up before a model is served, with what is loaded anyway."""
    verbs = [f"moestro.cli.{verb}" for verb in (*front.VERBS, "launch", "planning", "recall")]
    program = (
        f"import sys, moestro.verify.stored, {', '.join(verbs)}; print('numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"


def all_errors(base: type[MoestroError]) -> list[type[MoestroError]]:
    return [base] + [error for child in base.__subclasses__() for error in all_errors(child)]


def test_every_error_has_its_own_code() -> None:
    public = [error for error in all_errors(MoestroError) if error.__module__ == "moestro.errors"]
    codes = [error.code for error in public]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("verb", [("status",), ("keys", "list"), ("stop",), ("models", "list")])
def test_a_user_without_a_home_gets_a_sentence(
    verb: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for variable in ("MOESTRO_DATA", "MOESTRO_CACHE", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    assert front.main([*verb]) == 1
    assert "no home folder" in capsys.readouterr().err


@pytest.mark.parametrize("terminal", [True, False])
def test_errors_are_as_wide_as_the_terminal(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    path = "/somewhere/" + "x" * 60
    front.report_error(
        MoestroError(f"The file {path} is not there.", hint="one " * 20), as_json=False
    )
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (2 if not terminal else 5)
    assert any(path in line for line in lines)
    assert all(len(line) <= 50 or path in line for line in lines) or not terminal


def test_a_hint_offers_no_way_that_does_not_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(["up", "demo", "--parallel", "5000", "--port", "0"]) == 1
    said = capsys.readouterr().err
    assert "at most 256 streams" in said
    assert "--anyway" not in said
