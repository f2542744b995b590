"""A source file and a small change to it: most of the answer stands in the prompt already."""

from __future__ import annotations

from collections.abc import Iterator
from keyword import iskeyword

from moestro.load.scenario import Scenario, Session, Turn
from moestro.load.scenario_sets.prose import WORDS, Writer

PROMPT_TOKENS = 750
FILE_TOKENS = 700
OUTPUT_TOKENS = 256

_FUNCTIONS = (
    '''def {verb}_{noun}({noun}s, limit={number}):
    """Return the {noun}s that are at most `limit`."""
    kept = []
    for {noun} in {noun}s:
        if {noun}["{field}"] <= limit:
            kept.append({noun})
    return kept
''',
    '''def {verb}_{noun}(path, separator=","):
    """Read one {noun} per line; {field} is the first column."""
    result = {{}}
    with open(path, encoding="utf-8") as file:
        for line in file:
            {field}, value = line.rstrip().split(separator, 1)
            result[{field}] = value
    return result
''',
    '''def {verb}_{noun}(first, second):
    """Merge two {noun}s; the {field} of the second one wins."""
    merged = dict(first)
    merged.update(second)
    if "{field}" not in merged:
        merged["{field}"] = {number}
    return merged
''',
    '''class {noun_title}{field_title}:
    """Counts every {noun} by its {field}."""

    def __init__(self, start={number}):
        self.{field} = start
        self.{noun}s = []

    def {verb}(self, {noun}):
        self.{noun}s.append({noun})
        self.{field} += len(self.{noun}s)
        return self.{field}
''',
)
_NAMES = tuple(word for word in WORDS if not iskeyword(word))
_HALF_A_PART = 120
_VERBS = ("load", "merge", "select", "count", "order", "check", "collect", "format", "update")


def _sessions(seed: int, characters_per_token: float) -> Iterator[Session]:
    writer = Writer("code-edit", seed)
    while True:
        source, name = _file(writer, FILE_TOKENS * characters_per_token)
        content = (
            f"In the file below, rename `{name}` to `{writer.chance.choice(_VERBS)}_all` and leave "
            "everything else as it is. Answer with the whole file and nothing else.\n\n"
            f"```python\n{source}```"
        )
        yield Session((Turn(({"role": "user", "content": content},), OUTPUT_TOKENS),))


def _file(writer: Writer, characters: float) -> tuple[str, str]:
    """A source of about so many characters, and the name that is to be changed in it."""
    source = f'"""{writer.heading()}."""\n'
    name = ""
    while len(source) < characters - _HALF_A_PART or not name:
        noun, field = (writer.chance.choice(_NAMES) for _ in range(2))
        verb = writer.chance.choice(_VERBS)
        pattern = writer.chance.choice(_FUNCTIONS)
        part = pattern.format(
            verb=verb,
            noun=noun,
            field=field,
            noun_title=noun.capitalize(),
            field_title=field.capitalize(),
            number=writer.chance.randrange(2, 5000),
        )
        if pattern.startswith("def"):
            name = name or f"{verb}_{noun}"
        source += f"\n\n{part}"
    return source, name


SCENARIO = Scenario(
    "code-edit",
    "code edit: a file of about 700 tokens and a small change to it",
    PROMPT_TOKENS,
    OUTPUT_TOKENS,
    1,
    _sessions,
)
