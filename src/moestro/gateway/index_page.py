"""What a person sees at `/`: what runs here, and how to call it."""

from __future__ import annotations

import json
import re

from moestro import __version__
from moestro.client.text import valid_text
from moestro.engine import EngineState
from moestro.gateway.defaults import DEFAULT_HOST, DEFAULT_PORT
from moestro.gateway.service import Service

_HOST = re.compile(r"[A-Za-z0-9.\-]{1,253}(:\d{1,5})?|\[[0-9a-fA-F:.]{2,45}\](:\d{1,5})?")


def index_text(service: Service, host: str | None) -> str:
    """`host` is the Host header: echoed only if it is one."""
    if host is None or not _HOST.fullmatch(host):
        host = f"{DEFAULT_HOST}:{DEFAULT_PORT}"
    model = service.model
    status = service.status
    state = "ready" if status.state is EngineState.READY else f"{status.state}: {status.reason}"
    limits = f"{model.parallel} stream{'s' if model.parallel != 1 else ''} at a time"
    if model.context_length is not None:
        limits = f"{model.context_length} tokens of context for each stream, {limits}"
    body = json.dumps(
        {"model": model.name, "messages": [{"role": "user", "content": "Hello"}]},
        ensure_ascii=False,
    ).replace("'", "'\\''")
    base_url = f"http://{host}/v1"
    return valid_text(
        f"moestro {__version__} serves the model {model.name} ({limits}). Its engine is {state}"
        f"\n\nOpenAI base URL: {base_url}\n\n"
        f"curl {base_url}/chat/completions -H 'Content-Type: application/json' -d '{body}'\n\n"
        "Also here: /v1/models, /v1/completions, /health, /metrics, and a page for browsers.\n"
    )
