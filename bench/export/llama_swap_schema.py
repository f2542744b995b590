"""Holds exported configurations of llama-swap to its published schema.

python -m bench.export.llama_swap_schema config-schema.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import yaml
from tests.export.plans import GOLDEN, deployment, with_file
from tests.export.test_llama_server import HOSTILE

from moestro.export import llama_swap


def main() -> None:
    schema = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    validator = jsonschema.Draft7Validator({**schema, "$schema": DRAFT_7})
    cases = [deployment(name) for name in GOLDEN]
    cases += [with_file(cases[0], path) for path in HOSTILE]
    for case in cases:
        content = yaml.safe_load(llama_swap.export(case).files[0].text)
        validator.validate(content)
        for model in content["models"].values():
            del model["cmd"]
        assert not validator.is_valid(content), "the schema accepts anything"
    print(f"{len(cases)} configurations are valid")


DRAFT_7 = "http://json-schema.org/draft-07/schema#"


if __name__ == "__main__":
    main()
