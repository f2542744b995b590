from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

from moestro.gateway.promptly import SLICE_NS

RESET_ON_FORK = 0x40000000  # os.SCHED_RESET_ON_FORK, where there is one

LOOK = """
import json, os, subprocess, sys
from moestro.gateway.promptly import run_promptly

def slice_ns():
    for line in open("/proc/self/sched"):
        name, _, value = line.partition(":")
        if name.strip() == "se.slice":
            return int(value)

if sys.argv[1:] == ["child"]:
    print(slice_ns())
    sys.exit()
os.setpriority(os.PRIO_PROCESS, 0, 3)
before = slice_ns()
done = run_promptly()
child = subprocess.run([sys.executable, __file__, "child"], capture_output=True, text=True)
told = [before, slice_ns(), json.loads(child.stdout)]
print(json.dumps([done, os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0), told]))
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "aarch64"),
    reason="Linux's own",
)
def test_a_short_slice_for_this_thread_and_no_other(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    script = tmp_path_factory.mktemp("look") / "look.py"
    script.write_text(LOOK)
    found = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=60
    )
    done, policy, nice, (before, after, child) = json.loads(found.stdout)
    assert done
    assert (policy & ~RESET_ON_FORK, nice) == (0, 3)
    release = tuple(int(part) for part in platform.release().split(".")[:2])
    if before is not None and release >= (6, 12):
        assert after == SLICE_NS
        assert child == before
