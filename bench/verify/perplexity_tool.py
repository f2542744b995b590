"""llama-perplexity's own code on the very engine that ships with moestro.

    python -m bench.verify.perplexity_tool -m MODEL -f TEXT …    # as llama-perplexity

Two builds of one release do not compute the same: other compilers round otherwise, activations in
8 bits then fall on the other side, and routers choose other experts. (The same Q6_K file of the
demo under two builds: a mean KL divergence of 0.0008 nats, a tenth of what Q6_K itself costs.) So
to compare measures and not builds, `perplexity.cpp` of the release is compiled by itself, and all
it calls is found in the engine's shared library, loaded first.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

from bench.cache import cache_folder
from bench.native import source_folder
from moestro.engine.llama_cpp.binding import flush_log, library_path
from moestro.engine.llama_cpp.version import EXPECTED_VERSION

ENTRY = "_Z16llama_perplexityiPPc"
"""`int llama_perplexity(int argc, char ** argv)`, as C++ compilers write it."""

NEW_STRINGS = "NSt7__cxx11"
"""In the names of functions with texts, where the library was compiled with libstdc++'s newer
ones."""


def library() -> Path:
    """The compiled perplexity.cpp; made if it is not there."""
    path = cache_folder() / f"llama-perplexity-{EXPECTED_VERSION}.so"
    if not path.exists():
        source = source_folder(None)
        names = subprocess.run(
            ["nm", "-D", "--defined-only", library_path()],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        tokenize = [name for name in names.split() if name.startswith("_Z15common_tokenize")]
        new_strings = any(NEW_STRINGS in name for name in tokenize)
        include = [f"-I{source / part}" for part in ("include", "common", "ggml/include", "vendor")]
        command = ["g++", "-std=c++17", "-O2", "-fPIC", "-shared", *include]
        command += [f"-D_GLIBCXX_USE_CXX11_ABI={int(new_strings)}", "-o", str(path)]
        subprocess.run([*command, source / "tools/perplexity/perplexity.cpp"], check=True)
    return path


def main(arguments: list[str]) -> int:
    engine = ctypes.CDLL(str(library_path()), mode=ctypes.RTLD_GLOBAL)
    entry = ctypes.CDLL(str(library()))[ENTRY]
    words = [b"llama-perplexity", *(argument.encode() for argument in arguments)]
    status = entry(len(words), (ctypes.c_char_p * (len(words) + 1))(*words, None))
    flush_log(engine)
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
