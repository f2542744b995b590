from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

from moestro.hardware.process_memory import in_ram, own, own_bytes, process_memory
from moestro.units import MIB


def test_the_memory_of_a_process(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text(
        "Name:\tx\nVmRSS:\t 99 kB\nRssAnon:\t 10 kB\nRssFile:\t 20 kB\nRssShmem:\t 0 kB\n"
        "VmSwap:\t 5 kB\nRssAnonX:\tkB\n"
    )
    found = process_memory(7, tmp_path)
    assert found == {"anon": 10240, "file": 20480, "shared": 0, "swap": 5120}
    assert in_ram(found) == 30720
    assert process_memory(os.getpid(), tmp_path)["resident"] > 0
    assert process_memory(2**22 + 1, tmp_path) == {}
    assert process_memory(None) == {}
    assert in_ram({}) is None
    assert own(found) == 15360
    assert own({"resident": 1}) is None


def test_own_memory_grows_by_what_is_taken() -> None:
    before = own_bytes(os.getpid())
    # Memory of its own, not what the process has free already.
    with mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as kept:
        kept.write(b"\1" * len(kept))
        after = own_bytes(os.getpid())
    assert before is not None
    assert after is not None
    assert after - before > 60 * MIB


def test_a_process_that_is_gone_has_none() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert own_bytes(process.pid) is None
    assert process_memory(process.pid) == {}
