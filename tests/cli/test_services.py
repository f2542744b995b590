"""What commands say that know of the services of this user."""

from __future__ import annotations

import os

import pytest

from moestro.cli.main import main
from moestro.cli.services import listen, registered
from moestro.errors import PortTaken
from moestro.gateway.server import base_url, bind


def test_a_port_that_moestro_has_itself() -> None:
    with bind(port=0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortTaken, match="taken by another program"):
            listen("127.0.0.1", port)
        with (
            registered(base_url(listener), "a-model", "demo", None, "key"),
            pytest.raises(PortTaken) as caught,
        ):
            listen("127.0.0.1", port)
    assert f"by moestro, which serves a-model (process {os.getpid()})" in caught.value.sentence
    assert f"moestro stop --port {port}" in (caught.value.hint or "")


def test_a_service_without_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with registered("http://127.0.0.1:9", "a-model", "demo", None, "key"):
        assert main(["logs"]) == 1
    assert "http://127.0.0.1:9 was started by moestro up" in capsys.readouterr().err
