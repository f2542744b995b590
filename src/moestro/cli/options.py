"""Options that several verbs share, under one name and with one help text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from moestro.gateway.defaults import DEFAULT_HOST, DEFAULT_PORT

if TYPE_CHECKING:
    from moestro.planning import Wishes

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
CACHE_TYPES = ("f16", "q8_0", "q4_0")
FLASH_ATTENTION = ("auto", "on", "off")
LOAD_MODES = ("auto", "mmap", "none", "mlock")
NGRAMS = ("off", "simple", "map-k", "map-k4v", "mod", "cache")
INT_MAX = (1 << 31) - 1
ENGINE_THREADS_MAX = 512


def json_option(function: Decorated) -> Decorated:
    return click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")(
        function
    )


def address_options(function: Decorated) -> Decorated:
    for option in (
        click.option(
            "--port",
            type=click.IntRange(0, 65535),
            metavar="N",
            default=DEFAULT_PORT,
            show_default=True,
            help="Port of the endpoint; 0 takes a free one.",
        ),
        click.option(
            "--host",
            metavar="ADDRESS",
            default=DEFAULT_HOST,
            show_default=True,
            help="Address to listen on.",
        ),
    ):
        function = option(function)
    return function


def report_option(text: str) -> Callable[[Decorated], Decorated]:
    """`--report`, a page; see `moestro.cli.page.check_report`. `text` says what it shows."""
    return click.option(
        "--report",
        metavar="FILE.html",
        type=click.Path(dir_okay=False, path_type=Path),
        default=None,
        help=text,
    )


def engine_options(function: Decorated) -> Decorated:
    """What the user fixes stays fixed; what is left out is chosen, with a reason."""
    for option in (
        click.option(
            "--untuned",
            is_flag=True,
            help="Plan without what `moestro tune` found on this machine.",
        ),
        click.option(
            "--gpu-layers",
            type=click.IntRange(0, INT_MAX),
            default=None,
            metavar="N",
            help="Layers on the GPU, counted from the last one (default: what fits).",
        ),
        click.option(
            "--cpu-expert-layers",
            type=click.IntRange(0, INT_MAX),
            default=None,
            metavar="N",
            help="Layers on the GPU whose experts stay in host memory (default: as few as fit).",
        ),
        click.option(
            "--expert-cache",
            metavar="SIZE",
            default=None,
            help="GPU memory, like 4GiB, for the most recent of the experts that stay in host "
            "memory (default: what a forecast prefers; 0 is none).",
        ),
        click.option(
            "--cache-on-host/--cache-on-gpu",
            default=None,
            help="Keep the KV cache in host memory, which leaves the GPU to weights (default: "
            "beside the layers that use it).",
        ),
        click.option(
            "--flash-attention",
            type=click.Choice(FLASH_ATTENTION),
            default=None,
            help="Flash attention (default: auto, wherever the engine can).",
        ),
        click.option(
            "--mtp",
            type=click.IntRange(0, INT_MAX),
            default=None,
            metavar="DEPTH",
            help="Draft tokens from the model's MTP layer per step; 0 is off.",
        ),
        click.option(
            "--mtp-p-min",
            type=click.FloatRange(0, 1),
            default=None,
            metavar="P",
            help="Draft on only while the last draft is at least this probable (default: 0).",
        ),
        click.option(
            "--ngram",
            type=click.Choice(NGRAMS),
            default=None,
            help="Draft what followed the same words earlier in the text, in one of these ways "
            "(default: off).",
        ),
        click.option(
            "--load-mode",
            type=click.Choice(LOAD_MODES),
            default=None,
            help="How the file comes to memory: mapped, read (none), read and locked, or as the "
            "engine likes (default: auto).",
        ),
        click.option(
            "--no-repack",
            is_flag=True,
            help="Leave weights in the file's layout instead of one for this processor.",
        ),
        click.option(
            "--prompt-cache",
            metavar="SIZE",
            default=None,
            help="Host memory, like 1GiB, for prompts of earlier requests; 0 is none (default: a "
            "small part of what is free).",
        ),
        click.option(
            "--context-checkpoints",
            type=click.IntRange(0, INT_MAX),
            default=None,
            metavar="N",
            help="Snapshots per stream of what cannot be rolled back, so that a changed prompt is "
            "not read anew (default: what a small part of memory holds).",
        ),
        click.option(
            "--threads",
            type=click.IntRange(1, ENGINE_THREADS_MAX),
            default=None,
            metavar="N",
            help="CPU threads to compute on.",
        ),
        click.option(
            "--threads-batch",
            type=click.IntRange(1, ENGINE_THREADS_MAX),
            default=None,
            metavar="N",
            help="CPU threads to read prompts on (default: as many as --threads).",
        ),
        click.option(
            "--batch",
            type=click.IntRange(1, INT_MAX),
            default=None,
            metavar="N",
            help="Tokens that the engine takes at once, of all streams together (default: what "
            "follows from the other settings).",
        ),
        click.option(
            "--ubatch",
            type=click.IntRange(1, INT_MAX),
            default=None,
            metavar="N",
            help="Tokens computed at once while a prompt is read.",
        ),
        click.option(
            "--cache-type",
            type=click.Choice(CACHE_TYPES),
            default=None,
            help="Precision of the KV cache.",
        ),
        click.option(
            "--unified",
            is_flag=True,
            help="One cache that all streams share instead of an equal part for each.",
        ),
        click.option(
            "--parallel",
            type=click.IntRange(1, INT_MAX),
            default=None,
            metavar="N",
            help="Streams at the same time.",
        ),
        click.option(
            "--context",
            type=click.IntRange(1, INT_MAX),
            default=None,
            metavar="N",
            help="Tokens that one stream can reach; never clamped.",
        ),
        click.option(
            "--engine",
            metavar="ID|PATH",
            default=None,
            help="The engine to run it: an id of moestro engines list, or the path of a "
            "llama-server (default: the embedded one).",
        ),
    ):
        function = option(function)
    return function


def workload_options(function: Decorated) -> Decorated:
    """What the model is to be used for, and how much memory it may have for that."""
    for option in (
        click.option(
            "--budget",
            metavar="SIZE",
            default=None,
            help="Memory the model may take, like 20GiB: of each GPU, or of the host without one.",
        ),
        click.option(
            "--output-tokens",
            type=click.IntRange(1, INT_MAX),
            default=None,
            metavar="N",
            help="Length of a typical answer.",
        ),
        click.option(
            "--prompt-tokens",
            type=click.IntRange(1, INT_MAX),
            default=None,
            metavar="N",
            help="Length of a typical prompt.",
        ),
    ):
        function = option(function)
    return function


def wishes_of(options: dict[str, Any]) -> Wishes:
    """The parsed `engine_options` and `workload_options` as what the user fixed.

    Raises:
        UsageError: the budget or a cache is not a size.
    """
    from moestro.planning import Wishes
    from moestro.units import parse_size

    def size(name: str) -> int | None:
        text = options.pop(name, None)
        return None if text is None else parse_size(text)

    repack = False if options.pop("no_repack", False) else None
    sizes: dict[str, Any] = {
        f"{name}_bytes": size(name) for name in ("budget", "expert_cache", "prompt_cache")
    }
    return Wishes(**options, **sizes, repack=repack)
