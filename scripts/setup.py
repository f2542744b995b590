"""Prepares .venv: an environment with the engine build for this machine, and moestro in it.

    python3 scripts/setup.py [--dev]

Standard library only, needs nothing but pip, and may be repeated at any time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from moestro.engine.llama_cpp.builds import Build, choose_build, this_host  # noqa: E402
from moestro.engine.llama_cpp.version import EXPECTED_VERSION, PACKAGE  # noqa: E402
from moestro.hardware.graphics import find_graphics  # noqa: E402

VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
TOOLS = ROOT / ".venv-tools"
BUILD_RECORD = VENV / "moestro-engine-build"
ENGINE_LOADS = f"import {PACKAGE}; from moestro.engine.llama_cpp.abi import open_library as o; o()"
SHOWN_ERROR_LINES = 15


class SetupError(Exception):
    """One sentence, and what the failed command said."""


def main(arguments: list[str]) -> int:
    dev = "--dev" in arguments
    try:
        make_environment()
        build = install_engine(choose_build(this_host(), find_graphics()))
        say("Installing moestro" + (" and what its tests need" if dev else "") + " …")
        pip("install", "--editable", f"{ROOT}[dev]" if dev else str(ROOT))
        check_engine(build)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted: the set-up is not complete. Run it again to go on.", file=sys.stderr)
        return 130
    for stamp in (".ready", ".ready-dev") if dev else (".ready",):
        (VENV / stamp).touch()
    return 0


def make_environment() -> None:
    """A working .venv with pip. Debian's Python may come without the part that installs pip."""
    if run(VENV_PYTHON, "-m", "pip", "--version").returncode == 0:
        return
    version = ".".join(map(str, sys.version_info[:3]))
    say(f"Making an environment in .venv with Python {version} …")
    if run(sys.executable, "-m", "venv", "--clear", VENV).returncode == 0:
        return
    say("This Python cannot make one with pip inside; fetching virtualenv for that …")
    must(
        "virtualenv could not be fetched.",
        run(sys.executable, "-m", "pip", "install", "--quiet", "--target", TOOLS, "virtualenv"),
    )
    environment = {**os.environ, "PYTHONPATH": str(TOOLS)}
    must(
        "No environment could be made.",
        run(sys.executable, "-m", "virtualenv", "--clear", VENV, environment=environment),
    )


def install_engine(build: Build) -> Build:
    """Installs a build that the default index does not hold; says which one it is and why."""
    say(f"Engine: {PACKAGE} {EXPECTED_VERSION} (llama.cpp), {build.kind} build. {build.reason}")
    if build.index_url is not None and recorded() != describe(build):
        wanted = f"{PACKAGE}=={EXPECTED_VERSION}"
        source = ("--no-deps", "--force-reinstall", "--index-url", build.index_url)
        done = run(VENV_PYTHON, "-m", "pip", "install", "--quiet", *source, wanted)
        if done.returncode != 0:
            return fall_back("it could not be fetched from its package index")
    elif build.index_url is None and recorded() not in (None, describe(build)):
        reinstall_default()
    BUILD_RECORD.write_text(describe(build), encoding="utf-8")
    return build


def check_engine(build: Build) -> None:
    done = run(VENV_PYTHON, "-c", ENGINE_LOADS)
    if done.returncode == 0:
        return
    if build.index_url is None:
        must("The inference engine cannot be loaded.", done)
    fall_back("it cannot be loaded on this system")
    must("The inference engine cannot be loaded.", run(VENV_PYTHON, "-c", ENGINE_LOADS))


def fall_back(why: str) -> Build:
    say(f"That build is not used: {why}. The CPU build takes its place.")
    reinstall_default()
    build = Build("cpu", None, why)
    BUILD_RECORD.write_text(describe(build), encoding="utf-8")
    return build


def reinstall_default() -> None:
    pip("install", "--no-deps", "--force-reinstall", f"{PACKAGE}=={EXPECTED_VERSION}")


def recorded() -> str | None:
    try:
        return BUILD_RECORD.read_text(encoding="utf-8")
    except OSError:
        return None


def describe(build: Build) -> str:
    return f"{build.kind} {EXPECTED_VERSION}"


def pip(*arguments: str) -> None:
    must(
        "pip failed; is the network there?",
        run(VENV_PYTHON, "-m", "pip", "--disable-pip-version-check", *arguments, "--quiet"),
    )


def run(
    *command: str | Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    if shutil.which(words[0]) is None:
        return subprocess.CompletedProcess(words, 127, "", f"{words[0]}: not found")
    return subprocess.run(
        words, capture_output=True, text=True, errors="replace", env=environment, check=False
    )


def must(sentence: str, done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-SHOWN_ERROR_LINES:]
        raise SetupError("\n  ".join([sentence, *said]))


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
