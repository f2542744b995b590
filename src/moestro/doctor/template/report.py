"""What came of rendering a model's chat template on sample conversations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from moestro.engine.tokenizer import TemplateVerdict

Conversation = Literal["plain", "system", "turns", "tools"]
"""One question; with a system message; several turns; with tools: a call, its result, an answer."""

Outcome = Literal["rendered", "refused", "reaches-outside", "broken", "out-of-limits"]
"""`refused`: the template itself said no (`raise_exception`), as to a role it does not know.
`reaches-outside`: the sandbox stopped it at what no template needs. `broken`: a syntax error, or an
error while it ran. `out-of-limits`: too long, too large, or its process died."""


UNSAFE: tuple[Outcome, ...] = ("reaches-outside", "out-of-limits")
"""After these nothing more is tried."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """`text` is empty unless it was rendered; `message` says why it was not.
    `lost` names what the conversation held and the text lacks, in words for people: "the system
    message", "the name of the tool that was called"."""

    conversation: Conversation
    outcome: Outcome
    text: str = ""
    message: str = ""
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TemplateReport:
    """`opens_answer`: a question's text goes on to where the answer begins (None where it was not
    rendered). `keeps_prefix`: the text of a conversation, up to the end of its last answer, is the
    beginning of its continuation's, so that an engine that cached the one need not read it again;
    the answer has a thought before it where the template writes thoughts. `engine` is what the
    engine's own parser makes of it; None where it could not be asked.

    `changes_data`: it appends to lists or updates objects, which other runtimes' sandboxes refuse.
    `after_answer` is what follows an assistant's message until the next one; `marks` are the
    strings in the texts that look like tokens of their own (`<|im_end|>`, `[INST]`). `private` and
    `unclear` are clauses on its syntax: see `reaching.Syntax`.
    """

    renderings: tuple[Rendering, ...]
    opens_answer: bool | None = None
    keeps_prefix: bool | None = None
    engine: TemplateVerdict | None = None
    changes_data: bool = False
    after_answer: str | None = None
    marks: tuple[str, ...] = ()
    private: str | None = None
    unclear: str | None = None

    def of(self, conversation: Conversation) -> Rendering | None:
        return next((r for r in self.renderings if r.conversation == conversation), None)

    def with_tools_by(self, other: TemplateReport) -> TemplateReport:
        """For a file with two templates: `other` is of the one that conversations with tools get.
        What is unsafe in it counts, whatever the conversation."""
        kept = [r for r in self.renderings if r.conversation != "tools"]
        unsafe = [
            replace(r, message=f"the template for tools: {r.message}")
            for r in other.renderings
            if r.outcome in UNSAFE
        ]
        tools = [r for r in other.renderings if r.conversation == "tools" and r not in unsafe]
        return replace(
            self,
            renderings=(*kept, *unsafe, *(r for r in tools if r.outcome not in UNSAFE)),
            changes_data=self.changes_data or other.changes_data,
            marks=tuple(dict.fromkeys((*self.marks, *other.marks))),
            private=self.private or other.private,
            unclear=self.unclear or other.unclear,
        )
