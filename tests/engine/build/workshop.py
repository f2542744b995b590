"""A small source, and tools that only pretend: what a build does without compiling anything."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from moestro.engine.registry import Family

ARCHITECTURES = """\
static const std::map<llm_arch, const char *> LLM_ARCH_NAMES = {
    { LLM_ARCH_CLIP,     "clip"         }, // dummy
    { LLM_ARCH_LLAMA,    "llama"        },
    { LLM_ARCH_QWEN3MOE, "qwen3moe"     },
    { LLM_ARCH_UNKNOWN,  "(unknown)"    },
};

static const std::map<llm_kv, const char *> LLM_KV_NAMES = {
    { LLM_KV_GENERAL_TYPE, "general.type" },
};
"""
ARGUMENTS = '{"-kvu", "--kv-unified"}, {"-nr", "--no-repack"}, {"-lm", "--load-mode"}'

_CMAKE = """\
#!/bin/sh
PATH=/usr/bin:/bin
if [ "$1" = --version ]; then echo "cmake version ${FAKE_CMAKE_VERSION:-3.30.2}"; exit 0; fi
if [ -n "$FAKE_CMAKE_FAILS" ]; then
    echo "-- The C compiler identification is GNU"
    echo "CMake Error at ggml/CMakeLists.txt:12 (find_package):"
    echo "  No OpenMP here."
    exit 1
fi
while [ $# -gt 0 ]; do
    case "$1" in -B) build=$2;; esac
    shift
done
mkdir -p "$build/bin"
echo "-- Configuring done"
"""

# What it has done is kept in `done`, as objects would be: three steps, one after another.
_NINJA = """\
#!/bin/sh
PATH=/usr/bin:/bin
while [ $# -gt 0 ]; do
    case "$1" in -C) build=$2;; esac
    shift
done
cd "$build" || exit 1
echo "${MAKEFLAGS-unset}" > makeflags
for step in 1 2 3; do
    if ! [ -e "step$step" ]; then
        if [ "$step" = "$FAKE_STOP_AT" ]; then
            case "$FAKE_STOP_HOW" in
            fail)
                echo "FAILED: ggml/src/ggml.c.o"
                echo "../source/ggml/src/ggml.c:7:3: error: 'x' undeclared (first use here)"
                echo "../source/ggml/src/ggml.c:8:3: error: 'y' undeclared (first use here)"
                echo "ninja: build stopped: subcommand failed."
                exit 1;;
            killed)
                echo "c++: fatal error: Killed signal terminated program cc1plus"
                exit 1;;
            silent) exit 3;;
            hang)
                setsid sleep 600 &  # as ninja does with its compilers
                echo $! > child
                echo "[$step/3] waiting"
                wait;;
            esac
        fi
        : > "step$step"
    fi
    echo "[$step/3] Building CXX object ggml/src/part$step.cpp.o"
done
if [ -z "$FAKE_NO_PROGRAM" ]; then
    cp "$FAKE_SERVER" bin/llama-server
    chmod +x bin/llama-server
fi
"""

_CXX = """\
#!/bin/sh
PATH=/usr/bin:/bin
cat > /dev/null
for word in "$@"; do
    case "$word" in
    --version) echo "pretend-c++ 14.2"; exit 0;;
    "$FAKE_CXX_REFUSES") echo "<stdin>:1:10: fatal error: $word: not here" >&2; exit 1;;
    esac
done
"""

# A server that answers as both engines do: it loads for a moment, then completes.
_SERVER = """\
#!{python} -IS
import http.server, json, os, signal, sys
how = os.environ.get("FAKE_SERVER_HOW", "")
if "--version" in sys.argv:
    sys.exit(1 if how == "no-version" else 0)
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
open("stray.log", "w").close()  # ik_llama.cpp writes such a file where it is started
if how == "hangs":
    with open(os.environ["FAKE_SERVER_PID"], "w") as file:
        file.write(f"{{os.getpid()}}\\n")
    signal.pause()
if how == "crash-loading":
    print("loading", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)
if how == "illegal":
    os.kill(os.getpid(), signal.SIGILL)
assert open(words["-m"], "rb").read(4) == b"GGUF"
print("system_info: n_threads = 2 (n_threads_batch = 2) / 2 | "
      "CPU : SSE3 = 1 | AVX = 1 | AVX2 = 1 | AVX512 = 0 | REPACK = 1 | ", flush=True)

class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Handler.asked += 1
        self.reply(503 if Handler.asked == 1 else 200, {{"status": "ok"}})
    def do_POST(self):
        if how == "crash-answering":
            os.kill(os.getpid(), signal.SIGABRT)
        self.reply(500 if how == "refuses" else 200, {{"content": "yes"}})
    def reply(self, status, said):
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass

http.server.HTTPServer(("127.0.0.1", int(words["--port"])), Handler).serve_forever()
"""


@dataclass(frozen=True)
class FakeTools:
    """`folder` holds cmake, ninja and the compilers, and is the whole PATH."""

    folder: Path
    server: Path


def fake_tools(folder: Path) -> FakeTools:
    folder.mkdir(parents=True)
    for name, text in {"cmake": _CMAKE, "ninja": _NINJA, "cc": _CXX, "c++": _CXX}.items():
        write_program(folder / name, text)
    server = folder.parent / "fake-server"
    write_program(server, _SERVER.format(python=sys.executable))
    return FakeTools(folder, server)


def write_program(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def write_source(folder: Path, family: Family = "llama.cpp") -> Path:
    """A folder with just what tells the two engines apart, and a file that no build needs."""
    files = {
        "CMakeLists.txt": 'project("llama.cpp" C CXX)\n',
        "src/llama-arch.cpp": ARCHITECTURES,
        "models/large.gguf": "GGUF",
        "ggml/src/ggml.c": "int x;\n",
    }
    if family == "llama.cpp":
        files |= {
            "ggml/src/ggml-cpu/CMakeLists.txt": "",
            "tools/server/CMakeLists.txt": "",
            "common/arg.cpp": ARGUMENTS,
            "common/speculative.cpp": '{"draft-mtp", X}, {"ngram-simple", Y}',
        }
    else:
        files |= {
            "ggml/src/iqk/iqk_mul_mat.cpp": "",
            "examples/server/CMakeLists.txt": "",
            "common/build-info.cpp.in": "int LLAMA_BUILD_NUMBER = @BUILD_NUMBER@;\n"
            'char const *LLAMA_COMMIT = "@BUILD_COMMIT@";\n',
            "common/common.cpp": 'if (arg == "-rtr" || arg == "--run-time-repack") {',
        }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def write_distribution(folder: Path, family: Family = "llama.cpp") -> Path:
    """As the source distributions of the Python packages lay it out."""
    name, version, inside = (
        ("xllamacpp", "2026.10.11549", "thirdparty/llama.cpp")
        if family == "llama.cpp"
        else ("ik-llama-cpp-python", "0.1.5", "vendor/ik_llama.cpp")
    )
    write_source(folder / inside, family)
    said = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n"
    (folder / "PKG-INFO").write_text(said, encoding="utf-8")
    return folder
