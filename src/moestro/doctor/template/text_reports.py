"""Template and tokenizer of one model, each looked at with what the other knows: the template needs
the texts of the tokens that begin and end, and its marks should be tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

from moestro.doctor.template.examine import examine_template
from moestro.doctor.template.report import UNSAFE, TemplateReport
from moestro.doctor.template.stopper import Stopper
from moestro.engine.llama_cpp.tokenizer_probe import TokenizerProbe
from moestro.engine.tokenizer import TemplateVerdict, TokenizerReport
from moestro.errors import EngineError, MoestroError
from moestro.model import ModelSpec


@dataclass(frozen=True, slots=True)
class TextReports:
    """None where there is nothing to look at: no template, no GGUF on this machine. An error says
    why a look failed."""

    template: TemplateReport | MoestroError | None
    tokenizer: TokenizerReport | MoestroError | None


def look_at_text(spec: ModelSpec, stopper: Stopper | None = None) -> TextReports:
    """Takes a second for a vocabulary of 100,000 tokens, and a fifth of one for the template; eight
    at most, whatever the template does. Another thread may end it through `stopper`."""
    stopper = stopper or Stopper()
    if not can_be_probed(spec):
        return TextReports(_template(spec, None, None, stopper), None)
    probe = TokenizerProbe(spec)
    try:
        with stopper.ending(probe.kill), probe:
            template = _template(spec, probe.bos, probe.eos, stopper)
            if not isinstance(template, TemplateReport):
                return TextReports(template, probe.report())
            tokenizer = probe.report(template.marks, template.after_answer)
            if not any(r.outcome in UNSAFE for r in template.renderings):
                # It is the last question, so a template that takes the engine down harms no other.
                template = replace(template, engine=_judged(spec, probe))
            return TextReports(template, tokenizer)
    except EngineError as error:
        return TextReports(_template(spec, None, None, stopper), error)


def can_be_probed(spec: ModelSpec) -> bool:
    """The engine reads GGUF files of this machine, if they say what their vocabulary is."""
    local = spec.format == "gguf" and "://" not in spec.files[0].location
    return local and spec.tokenizer not in (None, "none", "no_vocab")


def _template(
    spec: ModelSpec, bos: str | None, eos: str | None, stopper: Stopper
) -> TemplateReport | MoestroError | None:
    texts = _templates(spec)
    if not texts:
        return None
    try:
        first, *others = (
            examine_template(text, bos=bos, eos=eos, stopper=stopper) for text in texts
        )
    except MoestroError as error:
        return error
    for other in others:
        first = first.with_tools_by(other)
    return first


def _templates(spec: ModelSpec) -> list[str]:
    """That of all conversations, then that of those with tools, where the file has both."""
    return [text for text in (spec.chat_template, spec.tool_template) if text is not None]


def _judged(spec: ModelSpec, probe: TokenizerProbe) -> TemplateVerdict | None:
    """The first verdict that is not *accepted*; nothing can be asked after a crash."""
    verdict: TemplateVerdict | None = None
    for text in _templates(spec):
        verdict = probe.judge(text)
        if verdict != "accepted":
            break
    return verdict
