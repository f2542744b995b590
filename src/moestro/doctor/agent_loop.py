"""A tool loop as agents run it: the prompt grows with every call and its result."""

from __future__ import annotations

from dataclasses import dataclass

from moestro.planning.forecaster import Speed


@dataclass(frozen=True, slots=True)
class AgentLoop:
    """`steps` calls in a row. The first prompt (instructions, tools, task) has `first_prompt`
    tokens; each step writes `output` tokens and reads `result` more, what the tool said."""

    steps: int = 10
    first_prompt: int = 2000
    output: int = 150
    result: int = 500

    def depth(self, step: int) -> int:
        """Tokens of the prompt at step 0, 1, …"""
        return self.first_prompt + step * (self.output + self.result)

    @property
    def longest(self) -> int:
        """Tokens in the context when the last answer is written."""
        return self.depth(self.steps - 1) + self.output

    def step_seconds(self, speed: Speed) -> float:
        """One step whose earlier prompt is in the cache: the last result read, an answer written.

        Rates are those of the plan's own prompt length; deeper contexts are slower.
        """
        return self.result / speed.prefill.expected + self.output / speed.decode.expected

    def read_again_seconds(self, speed: Speed) -> float:
        """What a step costs more, on average over the loop, if the whole prompt is read again."""
        again = sum(self.depth(step) - self.result for step in range(1, self.steps))
        return again / (self.steps - 1) / speed.prefill.expected


LOOP = AgentLoop()
