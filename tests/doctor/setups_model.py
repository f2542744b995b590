"""What was done to clean models: files damaged and read again, templates rendered for real."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from moestro.demo import model_path
from moestro.doctor.case import Case, ModelCase
from moestro.doctor.template.examine import Limits, examine_template
from moestro.doctor.template.text_reports import look_at_text
from moestro.engine.tokenizer import TemplateVerdict
from moestro.errors import ModelError
from moestro.findings import Finding, Severity
from moestro.model import ModelSpec, read_model
from moestro.model.completeness import look_at_files
from moestro.model.gguf import MAX_KEPT_TEXT_BYTES, read_gguf_header
from moestro.model.hugging_face import NO_CONFIG
from moestro.model.source import FileSource, unreadable
from moestro.planning import Wishes
from moestro.units import MIB
from tests.doctor.setups import Setup
from tests.doctor.workshop import Workshop, model, planned, spec
from tests.rewriting import Gguf
from tests.shapes import PUBLISHED, q4_k_m, write_header, write_split
from tests.shapes.families import qwen3moe
from tests.shapes.hugging_face import write_safetensors
from tests.tiny_models import CHATML, write_tiny

HASTY = Limits(cpu_seconds=1)
"""For templates that would run for ever."""

REACHES_OUT = (
    "{% for x in ().__class__.__base__.__subclasses__() %}"
    "{% if 'warning' in x.__name__ %}{{ x()._module.__builtins__['open']('/etc/passwd') }}"
    "{% endif %}{% endfor %}" + CHATML
)
HIDDEN = (
    "{% if messages | length > 50 %}{% set c = '_' * 2 %}"
    "{{ cycler[c ~ 'init' ~ c][c ~ 'globals' ~ c].os.popen('id').read() }}{% endif %}" + CHATML
)
PRIVATE = "{% if messages | length > 50 %}{{ tools[0].function.__description }}{% endif %}" + CHATML
CALLS_ITSELF = (
    "{% macro f(x) %}{{ f(x) }}{% endmacro %}"
    "{% if tools is defined and tools is iterable and not tools %}{{ f(1) }}{% endif %}" + CHATML
)
"""Only where there is an empty list of tools, as the engine gives it when it starts."""
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}" + CHATML
BOMB = (
    "{% set ns = namespace(x='a' * 1048576) %}{% for i in range(99) %}"
    "{% set ns.x = ns.x + ns.x %}{% endfor %}" + CHATML
)
TOOL_CHATML = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORGETFUL = (
    "{% for m in messages %}{% if m.role != 'assistant' %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SILENT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
STRANGE = "{{ 'a b' | wordwrap(2) | truncate(9) }}" + CHATML
BARS = CHATML.replace("<|im_start|>", "<|turn|>")


def cannot_read(workshop: Workshop, path: Path) -> Case:
    try:
        read_model(path)
    except ModelError as error:
        return workshop.case(model=None, plan=None, model_error=error)
    raise AssertionError(f"{path} can be read")


def with_spec(workshop: Workshop, changed: ModelSpec) -> Case:
    return workshop.case(model=replace(model(), spec=changed))


def with_text(workshop: Workshop, path: Path) -> Case:
    """Template and tokenizer of a file, looked at for real."""
    found = read_model(path)
    seen = look_at_text(found)
    changed = replace(model(), spec=found, template=seen.template, tokenizer=seen.tokenizer)
    return workshop.case(model=changed)


def with_files(workshop: Workshop, path: Path) -> Case:
    found = read_model(path)
    state = look_at_files(found, hash_up_to_bytes=64 * MIB)
    return workshop.case(model=replace(model(), spec=found, paths=(path,), completeness=state))


def folder(workshop: Workshop) -> Path:
    made = workshop.root / "models"
    made.mkdir(parents=True, exist_ok=True)
    return made


def rewritten(workshop: Workshop, name: str, change: Callable[[Gguf], None]) -> Path:
    """A tiny model, changed."""
    file = Gguf.open(write_tiny(name, folder(workshop)))
    change(file)
    return file.write(folder(workshop) / "changed.gguf")


def with_keys(name: str, **keys: Any) -> Callable[[Workshop], Case]:
    """A tiny model with other tokenizer keys; None drops one."""

    def change(workshop: Workshop) -> Case:
        def set_all(file: Gguf) -> None:
            for key, value in keys.items():
                if value is None:
                    file.drop(f"tokenizer.{key}")
                else:
                    file.set(f"tokenizer.{key}", value)

        return with_text(workshop, rewritten(workshop, name, set_all))

    return change


def with_template(
    template: str, engine: TemplateVerdict = "accepted", limits: Limits = HASTY
) -> Callable[[Workshop], Case]:
    """`engine` is what its parser would say."""

    def change(workshop: Workshop) -> Case:
        report = replace(examine_template(template, limits=limits), engine=engine)
        return workshop.case(model=replace(model(), template=report))

    return change


def _truncated(workshop: Workshop) -> Case:
    path = write_tiny("qwen3moe", folder(workshop))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 2 // 3)
    return cannot_read(workshop, path)


def _part_missing(workshop: Workshop) -> Case:
    shape = qwen3moe(layers=2, hidden=256, heads=4, kv_heads=2, head_dim=64, ffn=256,
                     expert_ffn=256, experts=8, used=2, vocab=512)  # fmt: skip
    paths = write_split(shape, folder(workshop), "model", 3)
    paths[1].unlink()
    return cannot_read(workshop, paths[0])


def _corrupt(workshop: Workshop) -> Case:
    path = write_tiny("qwen3moe", folder(workshop))
    with path.open("r+b") as file:
        file.seek(8)  # the number of tensors
        file.write((1 << 60).to_bytes(8, "little"))
    return cannot_read(workshop, path)


def _web_page(workshop: Workshop) -> Case:
    path = folder(workshop) / "model.gguf"
    path.write_text("<!DOCTYPE html><html><body>Access denied</body></html>" * 20)
    return cannot_read(workshop, path)


def _no_config(workshop: Workshop) -> Case:
    tensors = [("model.embed_tokens.weight", (16, 8), "BF16")]
    write_safetensors(folder(workshop) / "model.safetensors", tensors)
    return cannot_read(workshop, folder(workshop))


def _empty_folder(workshop: Workshop) -> Case:
    (folder(workshop) / "readme.txt").write_text("weights follow")
    return cannot_read(workshop, folder(workshop))


def _locked(workshop: Workshop) -> Case:
    """As another user's file is refused; whoever runs this may be allowed to read everything."""
    path = folder(workshop) / "model.gguf"
    denied = unreadable(path, PermissionError(errno.EACCES, "Permission denied"))
    return workshop.case(model=None, plan=None, model_error=denied)


def _changing(workshop: Workshop) -> Case:
    """Something still writes to the file while it is hashed."""
    path = write_tiny("qwen3moe", folder(workshop))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder(workshop) / "SHA256SUMS").write_text(f"{digest}  {path.name}\n")
    found, more = read_model(path), iter([b"more"])

    def progress(done_bytes: int) -> None:
        if done_bytes:
            with path.open("ab") as file:
                file.write(next(more, b""))

    try:
        look_at_files(found, hash_up_to_bytes=64 * MIB, progress=progress)
    except ModelError as error:
        changed = replace(model(), spec=found, paths=(path,), completeness=error)
        return workshop.case(model=changed)
    raise AssertionError("nobody noticed")


def _template_too_large(workshop: Workshop) -> Case:
    """Too large to be kept, with an attack at its end."""
    template = "{# " + "x" * (MAX_KEPT_TEXT_BYTES + 1) + " #}" + REACHES_OUT
    return with_keys("qwen3moe", chat_template=template)(workshop)


def with_hole(source: Path, target: Path, hole_bytes: int) -> Path:
    """A copy of which the middle of the largest expert tensor was never written."""
    with FileSource(source) as file:
        header = read_gguf_header(file)
    tensor = max(header.tensors, key=lambda t: ("exps" in t.name, t.size_bytes))
    assert tensor.size_bytes > hole_bytes + 8192
    begin = (header.data_offset + tensor.offset + 4096) // 4096 * 4096
    data = source.read_bytes()
    with target.open("wb") as file:
        file.write(data[:begin])
        file.seek(begin + hole_bytes)
        file.write(data[begin + hole_bytes :])
    return target


def _holes(workshop: Workshop) -> Case:
    target = folder(workshop) / "holes.gguf"
    return with_files(workshop, with_hole(model_path(), target, MIB))


def _modified(workshop: Workshop) -> Case:
    path = write_tiny("qwen3moe", folder(workshop))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder(workshop) / "SHA256SUMS").write_text(f"{digest}  {path.name}\n")
    with path.open("r+b") as file:
        file.seek(-100, 2)
        file.write(b"\x55")
    return with_files(workshop, path)


def _elsewhere(workshop: Workshop) -> Case:
    return workshop.case(model=ModelCase(spec(), verdict=model().verdict))


def _refused_by_engine(workshop: Workshop) -> Case:
    said = Finding(
        Severity.FAIL,
        "engine-refuses",
        "The engine refuses this model or these settings; memory is by formula",
        "demo has the architecture “strange”, which this engine does not know.",
        "Look for a newer moestro.",
    )
    return workshop.case(plan=replace(planned(), findings=(said,)))


def _router_in(kind: str) -> Callable[[Workshop], Case]:
    def change(workshop: Workshop) -> Case:
        def quantize(file: Gguf) -> None:
            name = "blk.1.ffn_gate_inp.weight"
            file.store(name, file.values(name), kind)

        return with_spec(workshop, read_model(rewritten(workshop, "qwen3moe", quantize)))

    return change


def _no_mtp_tensors(workshop: Workshop) -> Case:
    path = write_tiny("qwen35moe", folder(workshop), skip=("nextn",))
    return with_spec(workshop, read_model(path))


def _mtp_planned(workshop: Workshop) -> Case:
    bare = read_model(write_tiny("qwen3moe", folder(workshop)))
    plan = planned()
    settings = replace(plan.settings, mtp_depth=2)
    return replace(with_spec(workshop, bare), plan=replace(plan, model=bare, settings=settings))


def _gating_lost(workshop: Workshop) -> Case:
    path = write_tiny("deepseek2", folder(workshop), drop_keys=("deepseek2.expert_gating_func",))
    return with_spec(workshop, read_model(path))


def _no_template(workshop: Workshop) -> Case:
    path = write_tiny("qwen3moe", folder(workshop), drop_keys=("tokenizer.chat_template",))
    return with_text(workshop, path)


def _deaf(workshop: Workshop) -> Case:
    """The letter e is not in the vocabulary."""

    def drop_letter(file: Gguf) -> None:
        tokens = file.get("tokenizer.ggml.tokens")
        tokens[tokens.index("e")] = "<extra_e>"
        file.set("tokenizer.ggml.tokens", tokens)

    return with_text(workshop, rewritten(workshop, "qwen3moe", drop_letter))


def _other_end(workshop: Workshop) -> Case:
    """Turns end with a token that the engine does not know as an end."""

    def rename(file: Gguf) -> None:
        tokens = file.get("tokenizer.ggml.tokens")
        tokens[tokens.index("<|im_end|>")] = "<|over|>"
        file.set("tokenizer.ggml.tokens", tokens)
        file.set("tokenizer.ggml.eos_token_id", tokens.index("<|endoftext|>"))
        file.set("tokenizer.chat_template", CHATML.replace("<|im_end|>", "<|over|>"))

    return with_text(workshop, rewritten(workshop, "qwen3moe", rename))


def _long_context(workshop: Workshop) -> Case:
    return workshop.case(plan=planned(Wishes(context=16384)))


def _short_scaling(workshop: Workshop) -> Case:
    def scale(file: Gguf) -> None:
        file.set(".rope.scaling.type", "yarn")
        file.set(".rope.scaling.factor", 2.0)
        file.set(".rope.scaling.original_context_length", 512)

    return with_spec(workshop, read_model(rewritten(workshop, "qwen3moe", scale)))


def two_bits(name: str, dims: tuple[int, ...]) -> str:
    return "Q2_K" if "exps" in name else q4_k_m(name, dims)


def low_bit(workshop: Workshop) -> ModelSpec:
    path = folder(workshop) / "Qwen3-30B-A3B-Q2_K.gguf"
    shape = PUBLISHED["Qwen3-30B-A3B"]()
    return read_model(write_header(shape, path, types=two_bits, vocab_tokens=300))


def _low_bit(workshop: Workshop) -> Case:
    return with_spec(workshop, low_bit(workshop))


def _low_bit_not_verified(workshop: Workshop) -> Case:
    return workshop.case(model=replace(model(), spec=low_bit(workshop), verdict=None))


def _verdict(word: str) -> Callable[[Workshop], Case]:
    def change(workshop: Workshop) -> Case:
        clean = model().verdict
        assert clean is not None
        finding = Finding(Severity.FAIL, "divergence-high", "Answers differ too much", "0.4", "-")
        verdict = replace(clean, verdict=word, findings=(finding,))
        return workshop.case(model=replace(model(), verdict=verdict))

    return change


SETUPS: tuple[Setup, ...] = (
    Setup("model-truncated", "a file cut off after two thirds", "model-truncated", Severity.FAIL,
          _truncated),
    Setup("model-part-missing", "one of three parts deleted", "model-part-missing", Severity.FAIL,
          _part_missing),
    Setup("model-corrupt", "a header that claims 10^18 tensors", "model-corrupt", Severity.FAIL,
          _corrupt),
    Setup("not-a-model", "a web page under the model's name", "not-a-model", Severity.FAIL,
          _web_page),
    Setup("no-config", "weights without their config", NO_CONFIG, Severity.UNKNOWN, _no_config),
    Setup("no-model", "a folder without any weights", "model-not-found", Severity.FAIL,
          _empty_folder),
    Setup("model-locked", "a file that may not be read", "model-not-found", Severity.FAIL, _locked),
    Setup("model-changing", "a file that grows while it is hashed", "model-files-unreadable",
          Severity.FAIL, _changing),
    Setup("model-has-holes", "a MiB of an expert tensor never written", "model-has-holes",
          Severity.FAIL, _holes),
    Setup("model-modified", "one byte changed after SHA256SUMS was made", "model-modified",
          Severity.FAIL, _modified),
    Setup("model-elsewhere", "a model of which only the header was read", "model-elsewhere",
          Severity.UNKNOWN, _elsewhere),
    Setup("engine-refuses", "an architecture that the engine does not know", "engine-refuses",
          Severity.FAIL, _refused_by_engine),
    Setup("router-4-bits", "a router in Q4_0", "router-quantized", Severity.FAIL,
          _router_in("Q4_0")),
    Setup("router-8-bits", "a router in Q8_0", "router-quantized", Severity.WARN,
          _router_in("Q8_0")),
    Setup("mtp-tensors-missing", "MTP declared, its tensors dropped", "mtp-tensors-missing",
          Severity.FAIL, _no_mtp_tensors),
    Setup("mtp-absent", "a plan that drafts with a file without MTP", "mtp-absent", Severity.FAIL,
          _mtp_planned),
    Setup("gating-lost", "DeepSeek's sigmoid lost in conversion", "gating-function-lost",
          Severity.FAIL, _gating_lost),
    Setup("template-missing", "the chat template dropped", "chat-template-missing", Severity.WARN,
          _no_template),
    Setup("template-attack", "a template that looks for Python's `open`", "chat-template-unsafe",
          Severity.FAIL, with_template(REACHES_OUT)),
    Setup("tool-template-attack", "the same in the second template, which is for tools",
          "chat-template-unsafe", Severity.FAIL,
          with_keys("qwen3moe", chat_template=CHATML,
                    **{"chat_template.tool_use": REACHES_OUT})),
    Setup("template-hidden-attack", "an attack in pieces, for long conversations only",
          "chat-template-unsafe", Severity.FAIL, with_template(HIDDEN)),
    Setup("template-too-large", "an attack behind a comment of a MiB", "chat-template-too-large",
          Severity.FAIL, _template_too_large),
    Setup("template-private", "a template that looks for `__description`",
          "chat-template-private-attribute", Severity.WARN, with_template(PRIVATE)),
    Setup("template-crash", "a template that the engine's parser dies of",
          "chat-template-runaway", Severity.FAIL,
          with_keys("qwen3moe", chat_template=CALLS_ITSELF)),
    Setup("template-endless", "a template that counts for days", "chat-template-runaway",
          Severity.FAIL, with_template(ENDLESS)),
    Setup("template-bomb", "a template that doubles a text a hundred times",
          "chat-template-runaway", Severity.FAIL, with_template(BOMB)),
    Setup("template-broken", "a template without its last `endif`", "chat-template-broken",
          Severity.FAIL, with_template(CHATML.removesuffix("{% endif %}"), "refused")),
    Setup("template-forgets", "a template that leaves out earlier answers", "chat-template-loses",
          Severity.FAIL, with_template(FORGETFUL)),
    Setup("template-loses-calls", "a template that leaves out tool calls", "chat-template-loses",
          Severity.WARN, with_template(TOOL_CHATML)),
    Setup("template-silent", "a template that ignores add_generation_prompt",
          "chat-template-opens-no-answer", Severity.WARN, with_template(SILENT)),
    Setup("template-foreign", "a template with filters that the engine lacks",
          "engine-refuses-template", Severity.FAIL,
          with_keys("qwen3moe", chat_template=STRANGE)),
    Setup("template-marks", "marks that the vocabulary does not have", "template-marks-split",
          Severity.WARN, with_keys("qwen3moe", chat_template=BARS)),
    Setup("tokenizer-deaf", "a vocabulary without the letter e", "tokenizer-not-faithful",
          Severity.FAIL, _deaf),
    Setup("tokenizer-cutting", "tokenizer.ggml.pre dropped", "pretokenizer-missing", Severity.WARN,
          with_keys("qwen3moe", **{"ggml.pre": None})),
    Setup("answer-never-ends", "turns that end with a token that ends nothing",
          "answer-never-ends", Severity.WARN, _other_end),
    Setup("context-too-long", "16,384 tokens planned, 4,096 trained", "context-beyond-training",
          Severity.WARN, _long_context),
    Setup("scaling-short", "YaRN that reaches a quarter of the context", "rope-scaling-odd",
          Severity.WARN, _short_scaling),
    Setup("experts-2-bits", "experts in Q2_K", "low-bit-experts", Severity.WARN, _low_bit),
    Setup("experts-not-verified", "experts in Q2_K that nobody compared", "not-verified",
          Severity.WARN, _low_bit_not_verified),
    Setup("verify-failed", "a file that verify failed", "verify-failed", Severity.FAIL,
          _verdict("fail")),
    Setup("verify-warned", "a file that verify had doubts about", "verify-warned", Severity.WARN,
          _verdict("warn")),
)  # fmt: skip
