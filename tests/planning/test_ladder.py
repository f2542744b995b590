"""What is given up first, and what never."""

from __future__ import annotations

from moestro.planning.ladder import next_step
from moestro.planning.settings import Settings

PLAN = Settings(context=16384, parallel=2, threads=4, prompt_cache_bytes=1 << 30)


def all_steps(settings: Settings, **more: object) -> list[Settings]:
    found = []
    while (step := next_step(settings, **more)) is not None:  # type: ignore[arg-type]
        settings, said = step
        assert said.endswith(".")
        found.append(settings)
        assert len(found) < 100, "it never ends"
    return found


def changed(before: Settings, steps: list[Settings]) -> list[str]:
    names: list[str] = []
    for after in steps:
        (name,) = {
            name.removesuffix("_k").removesuffix("_v")
            for name in Settings.__slots__
            if getattr(before, name) != getattr(after, name)
        }
        if not names or names[-1] != name:
            names.append(name)
        before = after
    return names


def test_the_order_is_by_what_is_noticed_last() -> None:
    steps = all_steps(PLAN, expert_blocks=10, gpus=True)
    assert changed(PLAN, steps) == [
        "ubatch", "prompt_cache_bytes", "cache_type", "cpu_expert_layers", "context",
    ]  # fmt: skip
    last = steps[-1]
    assert (last.ubatch, last.prompt_cache_bytes, last.cache_type_v) == (128, 0, "q8_0")
    assert (last.cpu_expert_layers, last.context) == (10, 2048)
    assert last.parallel == PLAN.parallel


def test_without_a_gpu_there_is_nowhere_to_put_experts() -> None:
    assert "cpu_expert_layers" not in changed(PLAN, all_steps(PLAN, expert_blocks=10, gpus=False))


def test_what_the_user_asked_for_stays() -> None:
    fixed = ("ubatch", "context", "cache_type_k", "prompt_cache_bytes", "cpu_expert_layers")
    assert next_step(PLAN, expert_blocks=10, gpus=True, fixed=fixed) is None
    for name in fixed:
        steps = all_steps(PLAN, expert_blocks=10, gpus=True, fixed=(name,))
        assert name.removesuffix("_k") not in changed(PLAN, steps)


def test_a_quantized_cache_needs_flash_attention() -> None:
    steps = all_steps(
        Settings(context=4096, parallel=1, threads=1, flash_attention="off"),
        expert_blocks=0,
        gpus=False,
    )
    assert all(step.cache_type_k == "f16" for step in steps)
