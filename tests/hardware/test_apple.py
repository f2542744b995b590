from __future__ import annotations

import pytest

from moestro.hardware import apple
from moestro.hardware.apple import apple_gpu, default_share_bytes, find_apple, parse_number
from moestro.units import GIB


def test_the_share_that_the_owner_set():
    ((gpu,), findings) = apple_gpu("Apple M2 Ultra", 192 * GIB, 170 * 1024)
    assert (gpu.name, gpu.memory_bytes, gpu.shared) == ("Apple M2 Ultra GPU", 170 * GIB, True)
    assert findings == ()


@pytest.mark.parametrize("wired_mib", [None, 0, 500 * 1024])
def test_the_share_is_assumed_where_nothing_sensible_says_it(wired_mib: int | None):
    ((gpu,), (finding,)) = apple_gpu("Apple M2 Ultra", 192 * GIB, wired_mib)
    assert gpu.memory_bytes == 144 * GIB
    assert finding.code == "gpu-share-assumed"


def test_the_default_share():
    # Public readings: 10.67 GiB of 16, 48 of 64.
    assert default_share_bytes(16 * GIB) / GIB == pytest.approx(10.67, abs=0.01)
    assert default_share_bytes(64 * GIB) == 48 * GIB


def test_unknown_memory_stays_unknown():
    ((gpu,), findings) = apple_gpu("Apple M9", None, 4096)
    assert gpu.memory_bytes is None
    assert gpu.shared
    assert findings == ()


def test_asking_the_system(monkeypatch: pytest.MonkeyPatch):
    said = {
        "machdep.cpu.brand_string": "Apple M4 Max\n",
        "hw.memsize": f"{128 * GIB}\n",
        "iogpu.wired_limit_mb": "0\n",
    }
    monkeypatch.setattr(apple, "run_tool", lambda *command: said[command[-1]])
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    ((gpu,), _) = find_apple()
    assert (gpu.name, gpu.memory_bytes) == ("Apple M4 Max GPU", 96 * GIB)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert find_apple() == ((), ())


@pytest.mark.parametrize(
    ("text", "number"),
    [("12\n", 12), ("", None), ("-1", None), ("x", None), ("²", None), ("9" * 5000, None)],
)
def test_number(text: str, number: int | None):
    assert parse_number(text) == number
