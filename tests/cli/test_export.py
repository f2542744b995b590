"""`moestro export`, as a person and as a program call it."""

from __future__ import annotations

import io
import json
import os
import stat
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
    said = " ".join(err.split())
    for step in found["use"]:
        assert " ".join(step.split()) in said
    commands = [f"  {step}" for step in found["use"] if step[:1].islower()]
    lines = err.splitlines()
    assert set(commands) <= set(lines)  # whole, or what is copied is another command
    # A path alone may be longer.
    assert all(len(line) <= 80 or len(line.split()) <= 2 for line in lines if line not in commands)


def test_sentences_are_as_narrow_as_the_terminal(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    main(["export", str(made), "--to", "vllm"])
    lines = capsys.readouterr().err.splitlines()
    assert max(len(line) for line in lines) <= 50
    assert any(len(line) > 40 for line in lines)


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
    """A service does not start in the folder where the plan was made. A link keeps its name: what
    it leads to may be called after its checksum."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "sha256-12").touch()
    for name in ("here.gguf", "a\u00a0b.gguf"):
        (tmp_path / name).symlink_to("blobs/sha256-12")
    monkeypatch.chdir(tmp_path)
    model = json.loads(made.read_text())["model"]
    for name in ("here.gguf", "./here.gguf", "a\u00a0b.gguf"):
        files = [{"location": name, "size_bytes": 1}]
        path = changed(made, tmp_path / "plan.json", model={**model, "files": files})
        assert main(["export", str(path), "--to", "systemd"]) == 0
        out, _ = capsys.readouterr()
        full = f"{tmp_path}/{Path(name).name}"
        full = full if full.isascii() else f'"{full}"'
        assert f"--model {full}" in out
        assert f"BindReadOnlyPaths={full}\n" in out
        assert "sha256" not in out


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


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--mtp", "2"], "mtp-absent"),
        (
            ["--cache-type", "q8_0", "--flash-attention", "off"],
            "quantized-values-need-flash-attention",
        ),
    ],
)
def test_a_plan_that_fails_is_refused_from_a_file_too(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The server would end with an error where the export said that all of the plan is in it."""
    model = json.loads(made.read_text())["model"]["files"][0]["location"]
    main(["plan", model, "--hardware", CARD, *options, "--json"])
    path = tmp_path / "plan.json"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    assert json.loads(path.read_text())["fits"] is True
    assert main(["export", str(path), "--to", "compose", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert "--anyway" in failed(capsys, "-", "--to", "llama-server")
    assert main(["export", str(path), "--to", "compose", "--anyway"]) == 0
    assert "The plan says that it fails: " in capsys.readouterr().out


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


def test_out_that_is_no_file(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices, pipes and links to nothing are not for a file to take the place of."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("lost").symlink_to("nowhere")
    Path("null").symlink_to("/dev/null")
    for name in ("pipe", "lost", "null"):
        err = failed(capsys, str(made), "--to", "compose", "--out", name, "--force")
        assert "not a file" in err
    assert stat.S_ISFIFO(os.lstat("pipe").st_mode)
    assert Path("null").is_symlink()
    failed(capsys, str(made), "--to", "compose", "--out", "", status=2)
    assert main(["export", str(made), "--to", "compose", "--out", "-"]) == 0
    assert capsys.readouterr().out.startswith("# Made by moestro")
    assert not Path("-").exists()


def test_nobody_can_lie_in_wait(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A link under a name that can be guessed would have its end written over."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    (out / ".compose.yaml.part").symlink_to(victim)
    (out / "kept.yaml").write_text("old")
    (out / "kept.yaml").chmod(0o600)
    (out / "link.yaml").symlink_to("kept.yaml")
    assert main(["export", str(made), "--to", "compose", "--out", str(out)]) == 0
    assert victim.read_text() == "mine"
    assert (out / ".compose.yaml.part").is_symlink()
    new = stat.S_IMODE((out / "compose.yaml").stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    assert new == 0o666 & ~mask
    again = ["export", str(made), "--to", "compose", "--out", str(out / "link.yaml"), "--force"]
    assert main(again) == 0
    assert (out / "link.yaml").is_symlink()
    assert (out / "kept.yaml").read_text().startswith("# Made by moestro")
    assert stat.S_IMODE((out / "kept.yaml").stat().st_mode) == 0o600


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
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
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
