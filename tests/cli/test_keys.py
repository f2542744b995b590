from __future__ import annotations

import json
from pathlib import Path

import pytest

from moestro.cli.main import main


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOESTRO_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_a_key_from_its_making_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    limits = ["--requests-per-minute", "60", "--concurrent", "4"]
    assert main(["keys", "create", "--name", "ann", *limits, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["secret"].startswith("mo-")
    assert made["key"]["scopes"] == ["inference"]
    assert (made["key"]["requests_per_minute"], made["key"]["concurrent"]) == (60, 4)

    assert main(["keys", "list", "--json"]) == 0
    listed = capsys.readouterr().out
    assert json.loads(listed) == {"keys": [made["key"]]}
    assert made["secret"] not in listed

    assert main(["keys", "list"]) == 0
    shown = capsys.readouterr().out
    assert made["key"]["id"] in shown
    assert "60/min, 4 at once" in " ".join(shown.split())

    assert main(["keys", "revoke", made["key"]["id"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"revoked": made["key"]}
    assert main(["keys", "list"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "There are no keys: an endpoint that is started now answers every program" in said


def test_the_secret_is_alone_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "--scope", "metrics", "--scope", "admin"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("mo-")
    assert len(said.out.split()) == 1
    assert "admin, metrics" in said.err
    assert said.out.strip() not in said.err


def test_revoking_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "revoke", "key_nope"]) == 1
    assert "There is no key with the id “key_nope”." in capsys.readouterr().err


def test_a_damaged_file_is_one_sentence(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "gateway").mkdir(parents=True)
    (data / "gateway" / "keys.json").write_text("{")
    for arguments in (["keys", "list"], ["keys", "create"], ["up", "--port", "0"]):
        assert main(arguments) == 1
        said = capsys.readouterr().err
        assert "the file is damaged" in said
        assert "hint: " in said


@pytest.mark.parametrize("verb", ["up", "serve"])
def test_nobody_opens_a_model_to_others_by_accident(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "demo", "--host", "0.0.0.0", "--port", "0"]) == 1
    said = capsys.readouterr().err
    assert "There are no keys" in said
    assert "moestro keys create" in said
    assert "--no-keys" in said


@pytest.mark.parametrize(
    "arguments", [["--name", "x" * 81], ["--scope", "all"], ["--concurrent", "0"]]
)
def test_what_no_key_can_have(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", *arguments]) == 2
    assert "Error: Invalid value" in capsys.readouterr().err
