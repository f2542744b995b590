"""`moestro hardware`: a page that is read in ten seconds, JSON, and sentences for mistakes."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from moestro.cli import hardware
from moestro.cli import hardware as verb
from moestro.cli.main import main
from moestro.cli.planning import stored_rates
from moestro.cli.show_hardware import show_catalogue, show_inventory
from moestro.engine.llama_cpp.calibrate import COMMON_ATTENTION, COMMON_TYPES
from moestro.engine.llama_cpp.devices import EngineDevices
from moestro.engine.llama_cpp.version import EXPECTED_VERSION
from moestro.hardware import Cpu, Gpu, Inventory, Link, Memory, hardware_named
from moestro.hardware.catalogue import catalogue
from moestro.hardware.measure import host
from moestro.hardware.measure.figure import Figure, figure_of
from moestro.model import LocalFile, read_model
from moestro.planning.rates import KernelRates
from moestro.planning.work import attention_shapes, product_types
from moestro.units import GIB
from tests.hardware.machines import machine
from tests.planning import kernel_rates
from tests.tiny_models import write_tiny


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOESTRO_DATA", str(tmp_path / "data"))


def drawn(inventory: Inventory, width: int = 80) -> list[str]:
    console = Console(file=StringIO(), width=width, color_system=None, force_terminal=False)
    show_inventory(inventory, console)
    assert isinstance(console.file, StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> Any:
    assert main(["hardware", "--json", *arguments]) == status
    out, _ = capsys.readouterr()
    assert out.count("\n") == 1
    return json.loads(out)


def test_the_page_at_80_columns() -> None:
    lines = drawn(machine(findings=()))
    assert max(map(len, lines)) <= 80
    assert lines == [
        "Some CPU  this machine · Linux x86_64",
        "processor  6 of 8 cores may be used, AVX2",
        "memory     64.0 GiB DDR5-5600 on 2 channels, 50.0 GiB free, limited to 60.0 GiB,",
        "           swap 2.00 GiB, 1.00 GiB free",
        "           read 60.0 GB/s (55.0 to 62.0), measured 2026-01-01",
        "GPU        NVIDIA GeForce RTX 4090, 24.0 GiB, 23.0 GiB free, compute 8.9, a",
        "           screen hangs on it",
        "           memory 1008 GB/s peak; 165.2 TFLOPS f16",
        "           link PCIe 4.0 x16, 31.5 GB/s peak",
        "disk       nvme0n1 on /, NVME, 100 GiB free",
        "           read 5.00 GB/s, measured",
        "           at random unknown",
        "disk       tmpfs on /tmp, kind unknown",
        "           read unknown",
    ]


def test_unknown_is_printed_as_unknown_never_as_zero() -> None:
    bare = Inventory(
        None,
        "this machine",
        "Linux",
        Cpu(None, "x86_64", None, 1),
        Memory(GIB, GIB),
        gpus=(Gpu("amd", "AMD gfx1100"), Gpu("nvidia", "N", link=Link(width=8, max_width=16))),
    )
    page = "\n".join(drawn(bare))
    assert "1 cores" not in page
    for words in (
        "instruction sets unknown",
        "read unknown",
        "AMD gfx1100, memory unknown, ",
        "memory unknown; TFLOPS unknown",
        "link unknown",
        "link PCIe ? x8 (of x16), unknown",
        "disk       unknown",
        "hint: moestro hardware --measure",
    ):
        assert words.removesuffix(", ") in page, words
    assert " 0" not in page.replace("GPU 0", "")


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("name", ["rtx-4090", "m2-ultra", "2 x mi300x, 1024 GiB, 64 cores"])
def test_nothing_runs_over_the_edge(name: str, width: int) -> None:
    assert max(map(len, drawn(hardware_named(name), width))) <= width


def test_hostile_names_do_not_reach_the_terminal() -> None:
    evil = machine(cpu=Cpu("\x1b[31mred [bold]x[/bold]\x07", "x86_64", 1, 1))
    page = "\n".join(drawn(evil))
    assert "\x1b" not in page
    assert "\x07" not in page
    assert "[bold]x[/bold]" in page


def test_the_catalogue_fits_80_columns() -> None:
    console = Console(file=StringIO(), width=80, color_system=None, force_terminal=False)
    rows = list(catalogue().values())
    show_catalogue(rows, console)
    assert isinstance(console.file, StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    for row in rows:
        assert sum(line.startswith(f"{row.key} ") for line in lines) == 1
    assert "rtx-4090          24.0 GiB 1008 GB/s  165 TFLOPS  NVIDIA GeForce RTX 4090" in lines


def test_json_of_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys)
    assert found["source"] == "this machine"
    assert found["cpu"]["usable_cores"] >= 1
    assert type(found["memory"]["total_bytes"]) is int
    assert Inventory.from_json(found).identity == found["identity"]


def test_json_of_another_machine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = as_json(capsys, "--hardware", "2 x rtx-4090, 128 GiB DDR5-5600 dual channel")
    assert [gpu["name"] for gpu in found["gpus"]] == ["NVIDIA GeForce RTX 4090"] * 2
    assert found["memory"]["bandwidth"]["bytes_per_second"] == 89.6e9
    path = tmp_path / "own.toml"
    path.write_text('[memory]\nsize = "32 GiB"\n')
    assert as_json(capsys, "--hardware", str(path))["memory"]["total_bytes"] == 32 * GIB


def test_the_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["key"]: row for row in as_json(capsys, "--list")["hardware"]}
    assert rows.keys() == catalogue().keys()
    assert rows["rtx-4090"]["bandwidth_bytes_per_second"] == 1008e9
    assert rows["m2-ultra"]["kind"] == "machine"
    assert rows["m2-ultra"]["tflops_f16"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--hardware", "rtx-4091"], "rtx-4090"),
        (["--hardware", "none.toml"], "cannot be read"),
        (["--hardware", ""], "empty part"),
        (["--measure", "--hardware", "rtx-4090"], "cannot be measured"),
        (["--list", "--measure"], "nothing else"),
        (["--list", "--hardware", "rtx-4090"], "nothing else"),
        (["--for", "demo"], "Add --measure"),
        (["surplus"], "surplus"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hardware", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert "Traceback" not in err


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements that take no time."""

    def memory(threads: int, _: int) -> tuple[Figure, ...]:
        return (figure_of("memory-read", [8e9, 9e9], threads=threads, size_bytes=GIB, how="x"),)

    def disk(_: Path) -> tuple[Figure, ...]:
        return (figure_of("disk-sequential", [3e9], threads=1, size_bytes=GIB, how="x"),)

    monkeypatch.setattr(host, "measure_memory", memory)
    monkeypatch.setattr(host, "measure_disk", disk)
    # The engine's kernels take minutes; tests/engine/llama_cpp/test_calibrate.py times a few.
    monkeypatch.setattr(hardware, "measure_engine", lambda *_: ())


@pytest.mark.usefixtures("quick")
def test_what_is_measured_is_shown_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hardware", "--measure"]) == 0
    out, err = capsys.readouterr()
    assert "read 8.50 GB/s (8.00 to 9.00), measured 20" in out
    assert err.startswith("measuring memory")
    assert "measuring disk" in err
    found = as_json(capsys)
    assert found["memory"]["bandwidth"]["source"] == "measured"
    assert found["memory"]["bandwidth"]["bytes_per_second"] == 8.5e9
    assert found["disks"][0]["sequential"]["bytes_per_second"] == 3e9
    assert main(["hardware"]) == 0
    assert "hint:" not in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_an_interruption_keeps_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: Path) -> tuple[Figure, ...]:
        raise KeyboardInterrupt

    monkeypatch.setattr(host, "measure_disk", interrupted)
    assert main(["hardware", "--measure"]) == 130
    capsys.readouterr()
    assert as_json(capsys)["memory"]["bandwidth"]["source"] == "measured"


@pytest.mark.usefixtures("quick")
def test_what_cannot_be_measured_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from moestro.errors import HardwareError

    def fail(_: Path) -> tuple[Figure, ...]:
        raise HardwareError("The disk under / is full; it was not measured.")

    monkeypatch.setattr(host, "measure_disk", fail)
    found = as_json(capsys, "--measure")
    assert found["memory"]["bandwidth"]["source"] == "measured"
    assert "not-measured" in [finding["code"] for finding in found["findings"]]


@pytest.mark.usefixtures("quick")
def test_a_store_that_cannot_be_written_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOESTRO_DATA", str(tmp_path / "file"))
    assert main(["hardware", "--measure"]) == 1
    err = capsys.readouterr().err
    assert "error: The measurement could not be kept" in err
    assert "Traceback" not in err


def test_a_finding_of_severity_fail_is_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from moestro.findings import Finding, Severity

    broken = machine(findings=(Finding(Severity.FAIL, "code", "title"),))
    monkeypatch.setattr(verb, "_inventory", lambda _: replace(broken, name="x"))
    assert as_json(capsys, status=1)["findings"][0]["code"] == "code"


def rates_of(type_: str, *, whole: bool = True, load: float = 1.0) -> KernelRates:
    """What a calibration may return."""
    rates = kernel_rates.machine(type_, engine_version=EXPECTED_VERSION, load=load)
    return rates if whole else replace(rates, small={}, knee=None, sampling=None)


class Calibrations:
    """Stands in for `calibrate`: `calls` has what was asked, `answer` is returned."""

    def __init__(self, answer: KernelRates) -> None:
        self.answer = answer
        self.calls: list[Any] = []

    def __call__(self, threads: int, types: Any, attention: Any, **others: Any) -> KernelRates:
        self.calls.append(SimpleNamespace(types=types, attention=attention, **others))
        known = others["known"]
        return known.merged(self.answer) if known else self.answer


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> EngineDevices:
    """An engine that sees an integrated GPU and a card."""
    found = EngineDevices(2, (1,))
    monkeypatch.setattr("moestro.engine.llama_cpp.devices.engine_devices", lambda: found)
    return found


CALIBRATE = "moestro.engine.llama_cpp.calibrate.calibrate"


@pytest.mark.usefixtures("engine")
def test_the_engine_is_measured_anew_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine()
    first = Calibrations(rates_of("Q2_K", load=3.0))
    monkeypatch.setattr(CALIBRATE, first)
    assert hardware.measure_engine(here, ["Q2_K"], []) == ()
    assert [(call.known, call.anew, call.device) for call in first.calls] == [
        (None, True, 2),  # the processor, by the engine's number
        (None, True, 1),
    ]
    second = Calibrations(rates_of("F16"))
    monkeypatch.setattr(CALIBRATE, second)
    hardware.measure_engine(here, ["F16"], [])
    assert all(call.anew and call.known.load == 3.0 for call in second.calls)
    stored = stored_rates(here.identity)
    assert stored.keys() == {"CPU", "GPU0"}
    assert all((rates.load, {*rates.types}) == (1.0, {"Q2_K", "F16"}) for rates in stored.values())


@pytest.mark.usefixtures("engine")
def test_a_part_does_not_replace_the_whole_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine(gpus=())
    part = rates_of("F16", whole=False)
    monkeypatch.setattr(CALIBRATE, lambda *_, **__: part)
    (finding,) = hardware.measure_engine(here, ["F16"], [])
    assert (finding.code, finding.evidence) == ("measurement-incomplete", "CPU")
    assert not stored_rates(here.identity)["CPU"].has_common  # better than nothing
    monkeypatch.setattr(CALIBRATE, lambda *_, **__: rates_of("F16"))
    assert hardware.measure_engine(here, ["F16"], []) == ()
    monkeypatch.setattr(CALIBRATE, lambda *_, **__: part)
    (finding,) = hardware.measure_engine(here, ["F16"], [])
    assert stored_rates(here.identity)["CPU"].has_common


def test_a_model_that_is_not_there_is_told_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["hardware", "--measure", "--for", "no-such-file.gguf"]) == 1
    err = capsys.readouterr().err
    assert "no-such-file.gguf" in err
    assert "measuring" not in err


@pytest.mark.usefixtures("quick")
def test_what_a_model_needs_is_measured_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def engine(_: Inventory, types: Any, attention: Any) -> tuple[()]:
        asked.append((types, attention))
        return ()

    monkeypatch.setattr(hardware, "measure_engine", engine)
    assert main(["hardware", "--measure"]) == 0
    assert asked.pop() == (list(COMMON_TYPES), list(COMMON_ATTENTION))
    model = write_tiny("gemma3", tmp_path)
    assert main(["hardware", "--measure", "--for", str(model)]) == 0
    spec = read_model(LocalFile(model))
    ((types, attention),) = asked
    assert {*types} == {*COMMON_TYPES} | product_types(spec)
    # The planner takes a cache of Q8_0 where one of F16 does not fit.
    own = attention_shapes(spec) | attention_shapes(spec, "Q8_0", "Q8_0")
    assert len(own) == 2
    assert {*attention} == {*COMMON_ATTENTION} | own
    assert len({*attention}) == len(attention)
    assert len({*types}) == len(types)
    capsys.readouterr()
