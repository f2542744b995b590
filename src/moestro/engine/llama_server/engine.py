"""Any llama-server binary as an engine: a program of its own behind a small guard of ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moestro.engine.child import child_command
from moestro.engine.llama_server.dialects import DIALECTS
from moestro.engine.llama_server.flags import Asked, Flag, alias, words
from moestro.engine.llama_server.older import adapted
from moestro.engine.llama_server.probe import ask
from moestro.engine.pooling import names_pooling
from moestro.engine.process import EngineProcess
from moestro.engine.protocol import EngineRequest, EngineState
from moestro.engine.reasons import Reason
from moestro.engine.registry import FEATURES, SYNTHETIC_ACCEPTANCE, EngineInfo, needs
from moestro.errors import EngineStartFailed
from moestro.model import ModelSpec, read_model
from moestro.planning.placement import expert_blocks
from moestro.planning.settings import Settings

VERBOSITY = "4"
"""As for the embedded engine; see `llama_cpp.params`."""

LOOPBACK = "127.0.0.1"
ANY_PORT = 0
"""The system gives a free one, so there is no race for it; the guard sees which."""


class LlamaServerEngine(EngineProcess):
    """Implements `moestro.engine.Engine`.

    Raises:
        EngineError: there is no llama-server.
        EngineStartFailed: it cannot do what the settings say.
    """

    def __init__(
        self, request: EngineRequest, info: EngineInfo, *, log_file: Path | None = None
    ) -> None:
        assert info.program is not None
        super().__init__(
            request,
            child_command("llama_server.guard"),
            extra={"program": str(info.program), "arguments": arguments(request, info)},
            log_file=log_file,
        )
        self._info = info

    def _explain(self, exit_code: int | None) -> Reason:
        """What one engine refuses another may run, so the file is not to blame at once."""
        reason = super()._explain(exit_code)
        if self._own_reason is not None or reason.outside or self.state is EngineState.READY:
            return reason
        said = f"{self._info.family} {self._info.version} says: {reason.sentence}"
        hint = "Another engine may run it: moestro engines list --for MODEL. If none does: "
        hint += reason.hint or "look at its log."
        return Reason(said, hint, reason.log_helps)


def arguments(request: EngineRequest, info: EngineInfo) -> list[str]:
    """What the server is told, the key left out.

    Raises:
        EngineError: there is no llama-server.
        EngineStartFailed: it cannot do what the settings say.
    """
    model = read_model(request.model)
    talks = request.verbose and info.family == "llama.cpp"
    flags = (
        *_files(request),
        *((("--verbosity", VERBOSITY),) if talks else ()),
        ("--alias", alias(request.name)),
        *_extras(request, info),
        *setting_flags(info, model, request.settings, request.synthetic_acceptance),
        *_known(DIALECTS[info.family].serving_flags(LOOPBACK, ANY_PORT), info),
    )
    return words(flags)


def setting_flags(
    info: EngineInfo,
    model: ModelSpec,
    settings: Settings,
    synthetic_acceptance: tuple[float, ...] = (),
) -> tuple[Flag, ...]:
    """What `settings` are for this very engine.

    Raises:
        EngineError: there is no llama-server.
        EngineStartFailed: it cannot do what they say.
    """
    _check_features(info, settings, synthetic_acceptance)
    asked = Asked(settings, len(info.devices), tuple(expert_blocks(model)), synthetic_acceptance)
    return _known(DIALECTS[info.family].setting_flags(asked), info)


def _known(flags: Sequence[Flag], info: EngineInfo) -> tuple[Flag, ...]:
    if info.family != "llama.cpp":
        return tuple(flags)
    assert info.program is not None
    return adapted(flags, ask(info.program).options, info.id)


def _files(request: EngineRequest) -> tuple[Flag, ...]:
    found: list[Flag] = [("--model", str(request.model))]
    if request.projector is not None:
        found.append(("--mmproj", str(request.projector)))
    return tuple(found)


def _extras(request: EngineRequest, info: EngineInfo) -> tuple[Flag, ...]:
    found: list[Flag] = []
    if request.embeddings:
        found.append(("--embeddings", None))
        if not names_pooling(request.model):
            found.append(("--pooling", "last"))
    if request.thinking is not None:
        if info.family != "llama.cpp":
            raise EngineStartFailed(
                f"The engine {info.id} ({info.family}) has no switch for thinking.",
                hint="Let requests switch it, or take another engine: moestro engines list.",
            )
        found.append(("--reasoning", "on" if request.thinking else "off"))
    return tuple(found)


def _check_features(
    info: EngineInfo, settings: Settings, synthetic_acceptance: tuple[float, ...]
) -> None:
    wanted = needs(settings)
    if synthetic_acceptance:
        wanted |= {SYNTHETIC_ACCEPTANCE}
    missing = sorted(wanted - info.features)
    if missing:
        raise EngineStartFailed(
            f"The engine {info.id} ({info.family} {info.version}) cannot do this: "
            f"{', '.join(FEATURES[name] for name in missing)}.",
            hint="Leave that setting out, or take another engine: moestro engines list.",
        )
