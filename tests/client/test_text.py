from __future__ import annotations

import json

import pytest

from moestro.client.text import json_bytes, valid_text


@pytest.mark.parametrize("text", ["", "plain", "Grüß 🦙 語", "\x00\uffff\ue000\ud7ff"])
def test_valid_text_stays_as_it_is(text: str) -> None:
    assert valid_text(text) == text


def test_what_utf_8_can_t_hold_is_marked() -> None:
    assert valid_text("a\ud800b\udfffc") == "a\ufffdb\ufffdc"


def test_json_is_always_utf_8() -> None:
    data = {"k\ud800": ["\udce9", "ü", 1, None, '"\\']}
    assert json.loads(json_bytes(data).decode()) == {"k\ufffd": ["\ufffd", "ü", 1, None, '"\\']}
