"""Why each setting has its value, told from the trials around the chosen one."""

from __future__ import annotations

from dataclasses import replace

from moestro.planning.placement import HOST, block_count, expert_blocks
from moestro.planning.planner import Planner, Streams, Trial
from moestro.planning.search import split
from moestro.planning.settings import Reason, Settings, Source
from moestro.units import format_bytes

ASKED = "you asked for it"


def reasons(planner: Planner, trial: Trial, streams: Streams) -> tuple[Reason, ...]:
    """One for each field of `Settings` that is chosen here; the two cache types share one."""
    return _Explainer(planner, trial, streams).reasons()


class _Explainer:
    def __init__(self, planner: Planner, trial: Trial, streams: Streams) -> None:
        self.planner = planner
        self.trial = trial
        self.streams = streams
        self.found: list[Reason] = []

    def because(self, setting: str, why: str, source: Source) -> None:
        self.found.append(Reason(setting, why, "user" if why == ASKED else source))

    def reasons(self) -> tuple[Reason, ...]:
        wishes = self.planner.wishes
        self.because("context", self.streams.context_because, "computed")
        self.because("parallel", self.streams.parallel_because, "computed")
        one_each = "one for each core that may be used"
        self.because("threads", ASKED if wishes.threads else one_each, "computed")
        self.ubatch()
        self.cache_type()
        self.flash_attention()
        own = "every stream keeps its own part"
        self.because("unified", ASKED if wishes.unified else own, "assumed")
        self.gpu_layers()
        self.cpu_expert_layers()
        self.tensor_split()
        self.expert_cache()
        self.mtp()
        self.bounds()
        self.obeyed()
        return tuple(self.found)

    def ubatch(self) -> None:
        settings = self.trial.settings
        if self.planner.wishes.ubatch is not None:
            return self.because("ubatch", ASKED, "user")
        if not self.trial.fits or not self.planner.gpu_bytes:
            return self.because("ubatch", "the engine's default", "assumed")
        if settings.ubatch == 512 and self.trial.request_seconds is None:
            return self.because("ubatch", "the engine's default; speed is unknown", "assumed")
        if settings.ubatch == 512:
            return self.because("ubatch", "no other makes a request 2 % faster", "computed")
        default = self.planner.best(settings.context, settings.parallel, ubatches=(512,))
        if not default.fits:
            return self.because("ubatch", "with 512 nothing fits", "computed")
        mine, other = self.trial.request_seconds, default.request_seconds
        if mine is None or other is None:
            return self.because("ubatch", "it leaves more layers on the GPU than 512", "computed")
        why = f"a request takes {mine:.1f} s, {other:.1f} s with 512"
        return self.because("ubatch", why, "computed")

    def cache_type(self) -> None:
        if self.planner.wishes.cache_type is not None:
            self.because("cache_type_k", ASKED, "user")
        elif self.trial.settings.cache_type_k != "f16":
            self.because("cache_type_k", "with f16 nothing fits", "computed")
        elif self.trial.fits:
            self.because("cache_type_k", "the engine's own precision fits", "computed")
        else:
            self.because("cache_type_k", "nothing fits; the engine's default", "assumed")

    def flash_attention(self) -> None:
        if self.planner.wishes.flash_attention is not None:
            return self.because("flash_attention", ASKED, "assumed")
        if self.trial.settings.flash_attention == "off":
            why = "this engine fails with it in any slot but the first"
            return self.because("flash_attention", why, "assumed")
        return self.because("flash_attention", "the engine takes it wherever it can", "assumed")

    def gpu_layers(self) -> None:
        settings, wish = self.trial.settings, self.planner.wishes.gpu_layers
        if wish is not None and settings.gpu_layers == wish:
            return self.because("gpu_layers", ASKED, "user")
        if not self.planner.gpu_bytes:
            return self.because("gpu_layers", "no GPU was found", "computed")
        if wish is not None:
            return self.because("gpu_layers", _fewer_than(wish), "file")
        every = block_count(self.planner.model) + 1
        if (settings.gpu_layers or 0) >= every:
            return self.because("gpu_layers", "every block and the output head", "computed")
        more = self._over(gpu_layers=(settings.gpu_layers or 0) + 1)
        return self.because("gpu_layers", f"of {every}; one more {more}", "computed")

    def cpu_expert_layers(self) -> None:
        settings, wish = self.trial.settings, self.planner.wishes.cpu_expert_layers
        with_experts = len(expert_blocks(self.planner.model))
        if wish is not None and settings.cpu_expert_layers == wish:
            return self.because("cpu_expert_layers", ASKED, "user")
        if not with_experts:
            return self.because("cpu_expert_layers", "the model has no experts", "file")
        if not self.planner.gpu_bytes:
            return self.because(
                "cpu_expert_layers", "without a GPU all are on the host", "computed"
            )
        if wish is not None:
            return self.because("cpu_expert_layers", _fewer_than(wish), "file")
        if not settings.cpu_expert_layers:
            every = (settings.gpu_layers or 0) > block_count(self.planner.model)
            which = "all experts" if every else "those of the layers on it"
            return self.because("cpu_expert_layers", f"{which} fit the GPU", "computed")
        if settings.expert_cache_bytes and settings.cpu_expert_layers == with_experts:
            return self.because("cpu_expert_layers", "all; a cache on the GPU has some", "computed")
        fewer = self._over(cpu_expert_layers=settings.cpu_expert_layers - 1)
        why = f"of {with_experts}; one fewer {fewer}"
        return self.because("cpu_expert_layers", why, "computed")

    def expert_cache(self) -> None:
        """Uniform routing is the least that such a cache hits; what text hits was not measured."""
        trial, planner = self.trial, self.planner
        if not trial.placement.expert_blocks_on_host:
            why = "no experts are in host memory beside a GPU"
            return self.because("expert_cache_bytes", why, "computed")
        if planner.wishes.expert_cache_bytes is not None:
            return self.because("expert_cache_bytes", ASKED, "user")
        seconds = trial.request_seconds
        if trial.settings.expert_cache_bytes:
            return self.because("expert_cache_bytes", self._against_none(), "assumed")
        other = planner.with_expert_cache(trial)
        if other is None or other.request_seconds is None or seconds is None:
            return self.because("expert_cache_bytes", "whole layers first", "assumed")
        size = format_bytes(other.settings.expert_cache_bytes)
        why = (
            f"{size} in place of the experts on the GPU: {other.request_seconds:.1f} s a request "
            f"against {seconds:.1f} s, if routing is uniform; text hits such a cache more often"
        )
        return self.because("expert_cache_bytes", why, "assumed")

    def _against_none(self) -> str:
        """What the chosen cache brings over the best that does without: layers of experts there."""
        settings, planner = self.trial.settings, self.planner
        without = planner.with_wishes(replace(planner.wishes, expert_cache_bytes=0)).best(
            settings.context, settings.parallel, ubatches=(settings.ubatch,)
        )
        mine, other = self.trial.request_seconds, without.request_seconds
        if not without.fits or mine is None or other is None:
            return "without it nothing fits"
        return f"a request takes {mine:.1f} s, {other:.1f} s without one, if routing is uniform"

    def _over(self, **change: int) -> str:
        """By how much a GPU would be short with one setting moved."""
        moved = replace(self.trial.settings, **change)  # type: ignore[arg-type]
        shares = split(self.planner.model, moved, self.planner.gpu_bytes)
        trial = self.planner.trial(replace(moved, tensor_split=shares))
        short = {name: over for name, over in trial.over_bytes.items() if over and name != HOST}
        if not short:
            return "would not be faster" if self.trial.fits else "would not help"
        device = max(short, key=lambda name: short[name])
        return f"would be {format_bytes(short[device])} too much for {device}"

    def tensor_split(self) -> None:
        if self.trial.settings.tensor_split is None:
            why = "there are not several GPUs"
        else:
            why = "blocks by bytes, in proportion to each GPU's memory"
        self.because("tensor_split", why, "computed")

    def mtp(self) -> None:
        planner = self.planner
        if planner.wishes.mtp is not None:
            self.because("mtp_depth", ASKED, "user")
        elif not planner.model.mtp_layers:
            self.because("mtp_depth", "the file has no MTP layer", "file")
        else:
            self.because("mtp_depth", "drafting can lose on a MoE; measure it", "assumed")

    def bounds(self) -> None:
        settings, wishes = self.trial.settings, self.planner.wishes
        if wishes.prompt_cache_bytes is not None:
            self.because("prompt_cache_bytes", ASKED, "user")
        else:
            self.because("prompt_cache_bytes", "a bound; the engine's own is 8 GiB", "computed")
        each = self.planner.checkpoint_bytes(settings)
        if wishes.context_checkpoints is not None:
            self.because("context_checkpoints", ASKED, "user")
        elif self.planner.model.layers is None:
            self.because("context_checkpoints", "this architecture's state is unknown", "assumed")
        elif not each:
            self.because("context_checkpoints", "no recurrent state or window to keep", "file")
        else:
            total = format_bytes(each * settings.context_checkpoints * settings.parallel)
            self.because("context_checkpoints", f"they take {total} at most", "computed")

    def obeyed(self) -> None:
        """Settings that are only looked at where they are not as usual."""
        settings, wishes, usual = self.trial.settings, self.planner.wishes, Settings(1, 1, 1)
        for name in _OBEYED:
            if getattr(settings, name) != getattr(usual, name):
                asked = getattr(wishes, name) is not None
                why = ASKED if asked else "the engine that settings were measured with"
                self.because(name, why, "assumed")


_OBEYED = (
    "engine", "threads_batch", "batch", "repack", "load_mode", "mtp_p_min", "ngram",
    "cache_on_host",
)  # fmt: skip


def _fewer_than(wish: int) -> str:
    return f"all that there are; you asked for {wish}"
