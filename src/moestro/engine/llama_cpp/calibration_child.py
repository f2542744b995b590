"""Child process of `calibrate`: times the engine's kernels and reports each result as it comes.

Usage: python -m moestro.engine.llama_cpp.calibration_child REQUEST, with REQUEST in JSON:
{"threads": 2, "types": ["Q4_K", …], "attention": [[128, 128, "F16", "F16", 4], …], "common": true,
"quick": false, "patience_seconds": 20, "rounds": 3}.

On a shared machine everything is measured in several rounds, and what was disturbed in each of them
as many times again. The median of the undisturbed ones counts: for seconds at a time a core is
slower because a neighbour shares it, or faster because none does. Each result is what the quiet
machine does; how much slower it is on the whole, since others use it too, is one more figure:
`load`.
"""

from __future__ import annotations

import ctypes
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from moestro.engine.child import FAILED_START, ReportStream, claim_report_stream
from moestro.engine.llama_cpp.abi import open_library
from moestro.engine.llama_cpp.binding import LogCallback
from moestro.engine.llama_cpp.ggml import Device, declare
from moestro.engine.llama_cpp.kernels import Kernels, Timed, Weights, closing
from moestro.engine.llama_cpp.sampling_cost import sampling_seconds
from moestro.errors import EngineMismatch
from moestro.units import MIB

WARM_BYTES = 8 * MIB

STREAMED_COLUMNS = (1, 2, 3, 4, 6, 8)
WARM_COLUMNS = (1, 4)
BATCH_COLUMNS = (16, 32, 64, 128)
SMALL_COLUMNS = (1, 4, 16)
EXPERT_ROWS = (1, 2, 3, 4, 6, 8)
PROMPT_ROWS = (16, 64)
WARM_EXPERT_ROWS = SMALL_EXPERT_ROWS = (1, 4)
SMALL_EXPERT_WIDTH, MOST_GROUPS = 256, 40
BIG_ROWS, SMALL_ROWS, SMALL_ROW, EXPERT_WIDTH = 2048, 512, 512, 768

HEADS, QUERIES_EACH = 16, 4
"""Heads of latent attention, which share one vector of the cache; of other attention, queries that
share one head of the cache."""
STREAMS = 4
MOST_CACHES = 256

SMALL_OPERATIONS = (
    "norm", "l2_norm", "add", "mul", "swiglu_split", "rope", "weigh", "set_rows", "silu", "sigmoid",
    "cont", "soft_max", "sum_rows", "argsort_top_k",
)  # fmt: skip
OVER_EXPERTS = ("soft_max", "sum_rows", "argsort_top_k")

VOCABULARIES = (32_768, 151_936)

QUIET = 0.96
"""Share of processor time that a run must have had."""
FEWEST, MOST = 3, 60

CALM_LOAD = 1.02
"""A machine as little disturbed as this needs one round only."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long one figure is measured, in seconds, and how many bytes of weights are streamed.

    The bytes are more than most processors' caches hold: weights come from memory, as in a model.
    """

    enough_seconds: float = 0.012
    longest_seconds: float = 0.06
    stream_bytes: int = 160 * MIB
    knee_bytes: tuple[int, ...] = tuple(size * MIB for size in (4, 16, 32, 64, 128, 256))
    decode_depths: tuple[int, ...] = (255, 1023, 4095, 16383)
    stream_depths: tuple[int, ...] = (255, 1023, 4095)
    prefill_depths: tuple[int, ...] = (0, 1536, 7680)
    batch: int = 512
    rounds: int = 3


QUICK = Effort(0.0, 0.0, 4 * MIB, (2 * MIB, 4 * MIB), (255, 1023), (255, 1023), (0,), 64)
"""To see that everything works; the figures are worth little."""


class Clock:
    """Times operations on a machine that others disturb.

    While all threads work or spin, a process uses `threads` seconds of processor time in a second.
    Where it uses less, another guest or process had the cores, and that run does not count. The
    lower quartile of the rest is taken: what remains are slow caches and memory.

    Figures are measured in the same order in every round, so that a figure is known by its place
    among those of its `subject`.
    """

    def __init__(self, threads: int | None, effort: Effort, patience_seconds: float) -> None:
        self._threads = threads
        self._effort = effort
        self._patience = patience_seconds
        self._all_seconds = 0.0
        self._quiet_seconds = 0.0
        self.spreads: list[float] = []
        self._subject: tuple[object, ...] = ()
        self._place = 0
        self._rounds: defaultdict[tuple[object, ...], list[tuple[float, bool]]] = defaultdict(list)

    def begin(self, *subject: object) -> None:
        """Another round of `subject` begins."""
        self._subject, self._place = subject, 0

    def pooled(self, seconds: float, quiet: bool) -> float:
        """The figure that is next in order, from all rounds so far: the median of the quiet ones,
        and the fastest where none was, since others can only make a run longer."""
        rounds = self._rounds[*self._subject, self._place]
        self._place += 1
        rounds.append((seconds, quiet))
        calm = [seconds for seconds, quiet in rounds if quiet]
        return statistics.median(calm) if calm else min(seconds for seconds, _ in rounds)

    def settled(self, *subject: object) -> bool:
        """Whether each figure of `subject` was quiet in one round at least."""
        found = [rounds for key, rounds in self._rounds.items() if key[:-1] == subject]
        return bool(found) and all(any(quiet for _, quiet in rounds) for rounds in found)

    @property
    def load(self) -> float:
        """Wall time of everything that was run, over what it takes on the quiet machine."""
        return self._all_seconds / self._quiet_seconds if self._quiet_seconds else 1.0

    def seconds(self, timed: Timed) -> float:
        """Seconds of one unit on the quiet machine, from all rounds so far."""
        timed.run()  # the first run finds pages and caches cold
        longest = self._effort.longest_seconds
        quiet: list[float] = []
        rough: list[tuple[float, float]] = []  # (share of processor time, seconds)
        begun = time.perf_counter()
        while True:
            used = time.process_time()
            seconds = timed.run()
            share = 1.0
            if self._threads is not None:
                share = (time.process_time() - used) / (self._threads * seconds)
            rough.append((share, seconds))
            if share > QUIET:
                quiet.append(seconds)
            spent = time.perf_counter() - begun
            if sum(quiet) > self._effort.enough_seconds and len(quiet) >= FEWEST:
                break
            if len(quiet) >= MOST or spent > longest + max(self._patience, 0.0):
                break
        self._patience -= max(0.0, time.perf_counter() - begun - longest)
        was_quiet = len(quiet) >= FEWEST
        if was_quiet:
            quiet.sort()
            value = quiet[len(quiet) // 4]
            self.spreads.append(quiet[(3 * len(quiet)) // 4] / value - 1)
        else:
            value = min(seconds for _, seconds in rough)
        best = self.pooled(value, was_quiet)
        self._all_seconds += sum(seconds for _, seconds in rough)
        self._quiet_seconds += best * len(rough)
        return best / timed.units


class Calibration:
    def __init__(
        self,
        device: Device,
        report: ReportStream,
        threads: int,
        effort: Effort,
        patience_seconds: float,
    ) -> None:
        self.device = device
        self.report = report
        self.kernels = Kernels(device)
        self.effort = effort
        self.rounds = 0
        self.clock = Clock(threads if device.is_cpu else None, effort, patience_seconds)

    def _begin(self, what: str) -> bool:
        """False if `what` needs no more rounds."""
        if self.rounds >= self.effort.rounds and self.clock.settled(what):
            return False
        self._send_load("load")  # so far: an interrupt may come
        self.report.send("begin", what=what)
        self.clock.begin(what)
        return True

    def measure(
        self, common: bool, types: list[str], attention: list[tuple[int, int, str, str, int]]
    ) -> None:
        """Rounds of everything, and a few more of what was disturbed in each of them."""
        while self.rounds < 2 * self.effort.rounds:
            if common:
                self.common()
            self.types(types)
            self.attention(attention)
            self.rounds += 1
            if self.clock.load < CALM_LOAD or self.effort is QUICK:
                break

    def timed(self, timed: Timed) -> float:
        try:
            return self.clock.seconds(timed)
        finally:
            timed.close()

    def curve(self, points: tuple[int, ...], make: Callable[[int], Timed]) -> list[list[float]]:
        return [[point, self.timed(make(point))] for point in points]

    def types(self, names: list[str]) -> None:
        for name in names:
            if not self._begin(name):
                continue
            try:
                self.report.send("type", name=name, **self.one_type(name))
            except MemoryError:
                self.report.send("skipped", name=name, why="not enough memory")

    def one_type(self, name: str) -> dict[str, object]:
        kernels, batch_columns = self.kernels, max(self.effort.batch, BATCH_COLUMNS[-1] + 1)
        with closing(kernels.matrices(name, BIG_ROWS, self.effort.stream_bytes)) as big:
            per = big.elements
            warm = big.count_for(WARM_BYTES)
            streamed = self.curve(STREAMED_COLUMNS, lambda n: kernels.products(big, n))
            cached = self.curve(WARM_COLUMNS, lambda n: kernels.products(big, n, warm))
            batch = self.curve(
                (*BATCH_COLUMNS, batch_columns),
                lambda n: kernels.products(big, n, 2 if n < 128 else 1),
            )
            bytes_each, repacked = big.bytes_each, big.repacked
        with closing(
            kernels.matrices(name, SMALL_ROWS, self.effort.stream_bytes // 2, SMALL_ROW)
        ) as little:
            small = self.curve(
                (*SMALL_COLUMNS, batch_columns),
                lambda n: kernels.products(little, n, _count(little, n, 64)),
            )
            per_small = little.elements
        with closing(kernels.experts(name, EXPERT_WIDTH, self.effort.stream_bytes)) as experts:
            per_expert = experts.elements
            rows = self.curve(EXPERT_ROWS, lambda r: kernels.expert_products(experts, r))
            rows += self.curve(PROMPT_ROWS, lambda r: kernels.prompt_products(experts, r))
            warm_rows = self.curve(
                WARM_EXPERT_ROWS, lambda r: kernels.expert_products(experts, r, 1)
            )
        with closing(
            kernels.experts(name, SMALL_EXPERT_WIDTH, self.effort.stream_bytes // 4, SMALL_ROW)
        ) as few:
            small_rows = self.curve(
                SMALL_EXPERT_ROWS, lambda r: kernels.expert_products(few, r, MOST_GROUPS)
            )
            small_rows += self.curve(PROMPT_ROWS, lambda r: kernels.prompt_products(few, r))
            per_small_expert = few.elements
        return {
            "bytes_per_element": bytes_each / per,
            "repacked": repacked,
            "dense": _per_element(streamed + batch, per),
            "dense_cached": _per_element(cached, per),
            "small": _per_element(small, per_small),
            "experts": _per_element(rows, per_expert),
            "experts_cached": _per_element(warm_rows, per_expert),
            "experts_small": _per_element(small_rows, per_small_expert),
        }

    def attention(self, shapes: list[tuple[int, int, str, str, int]]) -> None:
        for key, value, type_k, type_v, kv_heads in shapes:
            name = f"attention {key}/{value} {type_k}, {kv_heads} heads in the cache"
            if not self._begin(name):
                continue
            heads = HEADS if key != value else QUERIES_EACH * kv_heads
            width, cell_bytes = heads * (key + value), 2 * kv_heads * (key + value)

            def make(
                tokens: int, depth: int, streams: int = 1, layers: int = 1, kv: int = kv_heads,
                k: int = key, v: int = value, tk: str = type_k, tv: str = type_v, h: int = heads,
            ) -> Timed | None:  # fmt: skip
                return self.kernels.attention(
                    key=k, value=v, heads=h, kv_heads=kv, type_k=tk, type_v=tv,
                    tokens=tokens, depth=depth, streams=streams, layers=layers,
                )  # fmt: skip

            tried = make(1, 255)
            if tried is None:
                self.report.send("skipped", name=name, why="unknown")
                continue
            tried.close()
            decode = []
            for depth in self.effort.decode_depths:
                layers = self._caches(cell_bytes * (depth + 1))
                seconds = self._optional(make(1, depth, 1, layers))
                decode.append([depth + 1, seconds / (width * (depth + 1))])
            streams = []
            for depth in self.effort.stream_depths:
                layers = self._caches(cell_bytes * (depth + 1) * STREAMS)
                seconds = self._optional(make(1, depth, STREAMS, layers))
                streams.append([depth + 1, seconds / (width * (depth + 1) * STREAMS)])
            few = self._optional(make(4, 1020)) / (width * 1022.5 * 4)
            prefill = []
            for depth in self.effort.prefill_depths:
                tokens = self.effort.batch if depth < 4096 else 128
                seconds = self._optional(make(tokens, depth))
                pairs = tokens * depth + tokens * (tokens + 1) / 2
                prefill.append([depth, seconds / (width * pairs)])
            self.report.send(
                "attention", key=key, value=value, type_k=type_k, type_v=type_v, kv_heads=kv_heads,
                decode=decode, streams=streams, few=few, prefill=prefill,
            )  # fmt: skip

    def _caches(self, size_bytes: int) -> int:
        """So many caches of that size that the first is gone from the processor's when its turn
        comes again, as in a model: there the weights of all layers are read in between."""
        return max(1, min(MOST_CACHES, self.effort.stream_bytes // size_bytes))

    def _optional(self, timed: Timed | None) -> float:
        assert timed is not None
        return self.timed(timed)

    def common(self) -> None:
        """What every model needs, whatever its types."""
        if not self._begin("small operations and the caches"):
            return
        kernels = self.kernels
        with closing(kernels.matrices("Q8_0", BIG_ROWS, self.effort.knee_bytes[-1])) as big:
            knee = [
                [size, self.timed(kernels.products(big, 1, big.count_for(size)))
                 / big.bytes_each]
                for size in self.effort.knee_bytes
            ]  # fmt: skip
        small: dict[str, dict[str, float]] = {}
        for name in SMALL_OPERATIONS:
            width = 128 if name in OVER_EXPERTS else 8192 if name == "weigh" else 2048
            one = self.timed(kernels.small(name, width, 1, 64))
            many = self.timed(kernels.small(name, width, 512, 3))
            element = max(0.0, many - one) / (width * 511)
            small[name] = {"node": max(0.0, one - element * width), "element": element}
        size, heads = 128, 32
        recurrent = {
            "gated_delta_net": [
                [n, self.timed(kernels.gated_delta_net(size=size, heads=heads, tokens=n))
                 / (n * heads * size * size)] for n in (1, 4, 256)
            ],
            "state_scan": [
                [n, self.timed(kernels.state_scan(size=size, head=64, heads=heads, tokens=n))
                 / (n * heads * size * 64)] for n in (1, 4, 256)
            ],
            "convolution": [
                [n, self.timed(kernels.convolution(channels=4096, tokens=n)) / (n * 4096)]
                for n in (1, 4, 256)
            ],
        }  # fmt: skip
        self.report.send(
            "common",
            knee=knee,
            small=small,
            recurrent=recurrent,
            step=self._step_seconds(),
            sampling=[
                [n, self.clock.pooled(sampling_seconds(self.device.library, n), True)]
                for n in VOCABULARIES
            ],
        )

    def _step_seconds(self) -> float:
        """A graph of one tiny operation after a pause: threads are woken and meet at the end."""
        timed = self.kernels.small("add", 256, 1, 1)
        runs = []
        for _ in range(60):
            time.sleep(0.001)
            runs.append(timed.run())
        timed.close()
        return self.clock.pooled(sorted(runs)[len(runs) // 4], True)

    def close(self) -> None:
        self._send_load("done")

    def _send_load(self, event: str) -> None:
        self.report.send(
            event,
            load=self.clock.load,
            spread=statistics.median(self.clock.spreads) if self.clock.spreads else None,
        )


def _count(weights: Weights, columns: int, most: int) -> int:
    return min(len(weights.tensors), most if columns <= 4 else 4)


def _per_element(points: list[list[float]], elements: int) -> list[list[float]]:
    return [[x, seconds / elements] for x, seconds in points]


def main() -> int:
    report = claim_report_stream()
    request = json.loads(sys.argv[1])
    try:
        library = declare(open_library())
    except EngineMismatch as error:
        report.send("failed", **error.to_json())
        return FAILED_START
    silent = LogCallback(lambda _level, _text, _data: None)
    library.llama_log_set(silent, None)  # one line for each tensor that is laid out anew
    library.ggml_log_set(silent, None)
    library.llama_backend_init()
    device = Device(library, int(request.get("device", 0)), int(request["threads"]))
    report.send("device", name=device.name, description=_description(library, device))
    threads, patience = int(request["threads"]), float(request["patience_seconds"])
    effort = QUICK if request["quick"] else Effort(rounds=int(request["rounds"]))
    calibration = Calibration(device, report, threads, effort, patience)
    attention = [tuple(shape) for shape in request["attention"]]
    calibration.measure(request["common"], request["types"], attention)
    calibration.close()
    return 0


def _description(library: ctypes.CDLL, device: Device) -> str:
    text: bytes = library.ggml_backend_dev_description(device.handle)
    return text.decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
