from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from moestro.engine.llama_cpp.builds import Host, choose_build, this_host
from moestro.hardware.graphics import Gpu, Graphics, Version

SOURCE = Path(__file__).parents[3] / "src"
LINUX = Host("Linux", "x86_64", (2, 35))
LINUX_ARM = Host("Linux", "aarch64", (2, 39))
MAC = Host("Darwin", "arm64", None)


def nvidia(*capabilities: Version, driver: Version | None) -> Graphics:
    gpus = (Gpu("nvidia", f"GPU sm_{major}{minor}", capability=(major, minor))
            for major, minor in capabilities)  # fmt: skip
    return Graphics(gpus=tuple(gpus), cuda=driver)


def amd(target: str, rocm: Version | None, *, vulkan: bool = False) -> Graphics:
    return Graphics(gpus=(Gpu("amd", "Radeon", target=target),), rocm=rocm, vulkan=vulkan)


@pytest.mark.parametrize(
    ("host", "graphics", "kind"),
    [
        # No GPU
        (LINUX, Graphics(), "cpu"),
        (LINUX_ARM, Graphics(), "cpu"),
        (MAC, Graphics(), "metal"),
        (Host("Darwin", "x86_64", None), Graphics(), "cpu"),
        (Host("Windows", "AMD64", None), nvidia((8, 9), driver=(13, 2)), "cpu"),
        # NVIDIA, natively: any driver of the same generation
        (LINUX, nvidia((8, 9), driver=(13, 2)), "cu132"),
        (LINUX, nvidia((8, 9), driver=(13, 0)), "cu132"),
        (LINUX, nvidia((8, 6), driver=(12, 2)), "cu128"),
        (LINUX, nvidia((12, 0), driver=(12, 9)), "cu128"),
        (LINUX, nvidia((7, 5), driver=(13, 0)), "cu132"),
        (LINUX_ARM, nvidia((12, 1), driver=(13, 0)), "cu132"),
        # NVIDIA, compiled at first start: the driver must know the toolkit
        (LINUX, nvidia((9, 0), driver=(13, 2)), "cu132"),
        (LINUX, nvidia((9, 0), driver=(13, 0)), "cu128"),
        (LINUX, nvidia((8, 0), driver=(12, 8)), "cu128"),
        (LINUX, nvidia((8, 0), driver=(12, 4)), "cpu"),
        (LINUX, nvidia((7, 5), driver=(12, 8)), "cu128"),
        (LINUX, nvidia((7, 0), driver=(13, 2)), "cu128"),
        (LINUX, nvidia((6, 1), driver=(12, 8)), "cu128"),
        (LINUX, nvidia((3, 5), driver=(11, 4)), "cpu"),
        (LINUX, nvidia((8, 9), driver=(11, 8)), "cpu"),
        (LINUX, nvidia((8, 9), driver=None), "cpu"),
        # Several: the build that serves most of them
        (LINUX, nvidia((8, 9), (6, 1), driver=(13, 2)), "cu128"),
        (LINUX, nvidia((8, 9), (9, 0), driver=(13, 2)), "cu132"),
        # Where the GPU wheels cannot be loaded
        (Host("Linux", "x86_64", (2, 31)), nvidia((8, 9), driver=(13, 2)), "cpu"),
        (Host("Linux", "x86_64", None), nvidia((8, 9), driver=(13, 2)), "cpu"),
        (Host("Linux", "ppc64le", (2, 39)), nvidia((7, 0), driver=(12, 8)), "cpu"),
        # AMD
        (LINUX, amd("gfx1100", (7, 2)), "rocm-7.2.4"),
        (LINUX, amd("gfx1100", (6, 4)), "rocm-6.4.1"),
        (LINUX, amd("gfx1201", (7, 2)), "rocm-7.2.4"),
        (LINUX, amd("gfx1201", (6, 4), vulkan=True), "vulkan"),
        (LINUX, amd("gfx1100", None, vulkan=True), "vulkan"),
        (LINUX, amd("gfx1100", None), "cpu"),
        (LINUX, amd("gfx90a", (7, 2)), "cpu"),
        (LINUX_ARM, amd("gfx1100", (7, 2)), "cpu"),
    ],
)
def test_choice(host: Host, graphics: Graphics, kind: str):
    build = choose_build(host, graphics)
    assert build.kind == kind
    assert build.reason.endswith(".")
    if kind in ("cpu", "metal"):
        assert build.index_url is None
    else:
        assert build.index_url is not None
        assert build.index_url.endswith(f"/whl/{kind}")


@pytest.mark.parametrize(
    ("graphics", "words"),
    [
        (Graphics(), ["No NVIDIA or AMD GPU"]),
        (nvidia((9, 0), driver=(13, 2)), ["sm_90", "CUDA 13.2", "compiled at first start"]),
        (nvidia((8, 9), driver=(13, 0)), ["sm_89", "native code"]),
        (nvidia((8, 0), driver=(12, 4)), ["needs a driver for CUDA 12.8", "supports CUDA 12.4"]),
        (nvidia((3, 5), driver=(11, 4)), ["older than CUDA 12.8 supports"]),
        (nvidia((9, 0), (3, 5), driver=(13, 2)), ["Not used: GPU sm_35"]),
        (amd("gfx1100", None), ["no ROCm", "libvulkan"]),
    ],
)
def test_reasons_name_what_decided(graphics: Graphics, words: list[str]):
    reason = choose_build(LINUX, graphics).reason
    assert all(word in reason for word in words), reason


def test_an_old_c_library_is_named():
    build = choose_build(Host("Linux", "x86_64", (2, 31)), nvidia((8, 9), driver=(13, 2)))
    assert "glibc 2.35" in build.reason
    assert "glibc 2.31" in build.reason


def test_this_host_is_known():
    assert this_host().system in ("Linux", "Darwin")


def test_it_runs_before_anything_is_installed():
    """`-I -S`: no site-packages, so an import of a dependency would fail."""
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); sys.argv = ['builds', '--json']\n"
        "from moestro.engine.llama_cpp.builds import main\nsys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {"kind", "index_url", "reason"}
