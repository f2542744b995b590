"""`moestro export`, as a person and as a program call it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moestro.cli import export as verb
from moestro.cli.main import main
from moestro.demo import model_path
from moestro.export.targets import TARGETS
from tests.shapes import PUBLISHED, write_header

CARD = "rtx-4090"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `plan MODEL --json` wrote."""
    folder = tmp_path_factory.mktemp("plans")
    model = write_header(PUBLISHED["Qwen3-30B-A3B"](), folder / "Qwen3-30B-A3B-Q4_K_M.gguf")
    path = folder / "plan.json"
    done = subprocess.run(
        [sys.executable, "-m", "moestro", "plan", str(model), "--hardware", CARD, "--json"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    path.write_text(done.stdout, encoding="utf-8")
    return path


def changed(made: Path, path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({**json.loads(made.read_text()), **changes}), encoding="utf-8")
    return path


def failed(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 1) -> str:
    """The sentence and the hint of a call that fails; nothing else is printed."""
    capsys.readouterr()
    assert main(["export", *arguments]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert err.count("error: ") == 1
    return err


def test_the_help_knows_every_target() -> None:
    assert [target.name for target in TARGETS] == list(verb.TARGETS)


@pytest.mark.parametrize("target", verb.TARGETS)
def test_every_target(made: Path, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(made), "--to", target]) == 0
    out, err = capsys.readouterr()
    assert out
    assert main(["export", str(made), "--to", target, "--json"]) == 0
    printed, nothing = capsys.readouterr()
    assert nothing == ""
    found = json.loads(printed)
    assert found["target"] == target
    assert found["written"] == []
    for file in found["files"]:
        assert file["text"] in out
        assert file["text"].endswith("\n")
        assert (f"==> {file['name']} <==" in out) == (len(found["files"]) > 1)
    for left in found["unexpressed"]:
        assert left["setting"] in err
        assert set(left) == {"setting", "planned", "instead"}
    said = " ".join(err.replace("\\\n", " ").split())
    for step in found["use"]:
        assert " ".join(step.split()) in said
    # A path alone may be longer.
    assert all(len(line) <= 80 or len(line.split()) <= 2 for line in err.splitlines())


def test_long_commands_stay_commands_when_they_are_copied(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["export", str(made), "--to", "kubernetes"])
    lines = capsys.readouterr().err.splitlines()
    first = next(number for number, line in enumerate(lines) if "kubectl cp" in line)
    assert lines[first].endswith(" \\")


def test_standard_input(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    main(["export", str(made), "--to", "vllm"])
    by_file = capsys.readouterr().out
    say(made.read_bytes())
    assert main(["export", "-", "--to", "vllm"]) == 0
    assert capsys.readouterr().out == by_file
    say(b"\xff\x00 not json")
    assert "not JSON" in failed(capsys, "-", "--to", "vllm")
    say(b'{"error": {"message": "There is no file at x.gguf."}}')
    assert "There is no file at x.gguf." in failed(capsys, "-", "--to", "vllm")
    say(b"[" * 100_000)
    assert "not JSON" in failed(capsys, "-", "--to", "vllm")
    say(b" " * ((16 << 20) + 1))
    assert "too large" in failed(capsys, "-", "--to", "vllm")
    say(b'{"plans": []}')
    assert "not a plan" in failed(capsys, "-", "--to", "vllm")


def test_a_model_is_planned_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "demo", "--to", "llama-server"]) == 0
    assert str(model_path()) in capsys.readouterr().out


def test_a_relative_path_becomes_a_full_one(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service does not start in the folder where the plan was made."""
    (tmp_path / "here.gguf").touch()
    (tmp_path / "link.gguf").symlink_to("here.gguf")
    monkeypatch.chdir(tmp_path)
    model = json.loads(made.read_text())["model"]
    for name in ("here.gguf", "./here.gguf", "link.gguf"):
        files = [{"location": name, "size_bytes": 1}]
        path = changed(made, tmp_path / "plan.json", model={**model, "files": files})
        assert main(["export", str(path), "--to", "systemd"]) == 0
        out, _ = capsys.readouterr()
        assert f"--model {tmp_path}/here.gguf" in out
        assert f"BindReadOnlyPaths={tmp_path}\n" in out


def test_which_target(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--to takes llama-server, " in failed(capsys, str(made), status=2)
    err = failed(capsys, str(made), "--to", "kubernets", status=2)
    assert "Did you mean kubernetes?" in err
    assert main(["export", str(made), "--to", "Compose"]) == 0


def test_what_is_not_a_plan(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.json"
    to = ("--to", "compose")
    assert "No such file" in failed(capsys, str(path), *to)
    for text, words in (
        ("{}", "not a plan"),
        ("[1]", "not a plan"),
        ("{", "not JSON"),
        ('{"settings": {}, "model": {}, "version": 2}', "version 2"),
    ):
        path.write_text(text)
        assert words in failed(capsys, str(path), *to)
    model = json.loads(made.read_text())["model"]
    for location in ("/srv/a\nb.gguf", "/srv/a\x1b[2J.gguf", ""):
        files = [{"location": location, "size_bytes": 1}]
        bad = changed(made, tmp_path / "bad.json", model={**model, "files": files})
        assert "damaged plan" in failed(capsys, str(bad), *to)
    assert "no file" in failed(capsys, str(tmp_path / "none.gguf"), *to).lower()


def test_a_plan_that_does_not_fit_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = changed(made, tmp_path / "plan.json", fits=False)
    assert "--anyway" in failed(capsys, str(path), "--to", "compose")
    assert main(["export", str(path), "--to", "compose", "--anyway"]) == 0


@pytest.mark.parametrize("host", ["a b", "127.0.0.1\n", "$(id)", "-x", "'", ""])
def test_hosts_that_are_none(made: Path, host: str, capsys: pytest.CaptureFixture[str]) -> None:
    failed(capsys, str(made), "--to", "systemd", f"--host={host}", status=2)


def test_out(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "my.yaml"
    assert main(["export", str(made), "--to", "compose", "--out", str(file)]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert f"written: {file}" in err
    assert file.read_text().startswith("# Made by moestro")
    assert "--force" in failed(capsys, str(made), "--to", "compose", "--out", str(file))
    again = ["export", str(made), "--to", "compose", "--port", "9", "--out", str(file), "--force"]
    assert main(again) == 0
    assert 'published: "9"' in file.read_text()
    assert main(["export", str(made), "--to", "compose", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "compose.yaml").is_file()
    folder = tmp_path / "k8s"
    capsys.readouterr()
    assert main(["export", str(made), "--to", "kubernetes", "--out", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted(found["written"]) == sorted(map(str, folder.iterdir()))
    assert len(found["written"]) == 2
    failed(capsys, str(made), "--to", "kubernetes", "--out", str(file), "--force", status=2)


def test_places_that_cannot_be_written(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    blocked = tmp_path / "file" / "compose.yaml"
    assert "could not be written" in failed(
        capsys, str(made), "--to", "compose", "--out", str(blocked)
    )
    long = tmp_path / ("x" * 300)
    assert "could not be written" in failed(
        capsys, str(made), "--to", "compose", "--out", str(long)
    )
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    err = failed(capsys, str(made), "--to", "compose", "--out", str(tmp_path))
    assert "No space left on device" in err
    assert list(tmp_path.iterdir()) == []


def test_the_help_loads_no_target() -> None:
    program = (
        "import sys; from moestro.cli.main import main; main(['export', '--help']); "
        "print([name for name in ('yaml', 'moestro.export.targets', 'moestro.planning', 'rich') "
        "if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr.strip() == "[]"


def test_yaml_waits_until_it_is_needed() -> None:
    program = "import sys, moestro.export.targets; print('yaml' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"
