from __future__ import annotations

import pytest

from moestro.engine.llama_server.flags import Flag
from moestro.engine.llama_server.older import adapted
from moestro.errors import EngineStartFailed

KNOWN = ("--model", "--draft-max", "--no-webui", "--no-mmap", "--mlock")


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        (("--model", "m"), [("--model", "m")]),
        (("--spec-draft-n-max", "3"), [("--draft-max", "3")]),
        (("--no-ui", None), [("--no-webui", None)]),
        (("--load-mode", "none"), [("--no-mmap", None)]),
        (("--load-mode", "mlock"), [("--mlock", None)]),
        (("--load-mode", "auto"), []),
        (("--repack", None), []),
        (("--fit", "off"), []),
    ],
)
def test_another_releases_words(flag: Flag, said: list[Flag]) -> None:
    assert list(adapted([flag], KNOWN, "it")) == said


@pytest.mark.parametrize(
    "flag", [("--no-repack", None), ("--kv-unified", None), ("--spec-draft-p-min", "0.5"),
             ("--moe-cache-mib", "5"), ("--fit", "on")],
)  # fmt: skip
def test_what_would_be_dropped_is_refused(flag: Flag) -> None:
    with pytest.raises(EngineStartFailed, match=f"it does not know {flag[0]}"):
        adapted([flag], KNOWN, "it")


def test_nothing_changes_where_all_is_known() -> None:
    flags: list[Flag] = [("--load-mode", "none"), ("--no-ui", None)]
    assert list(adapted(flags, ("--load-mode", "--no-ui", "--no-mmap"), "it")) == flags
