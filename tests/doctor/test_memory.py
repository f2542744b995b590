"""What the memory checks say beyond the set-ups: quiet ones, hostile files, real limits."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from moestro.doctor import cgroup
from moestro.doctor.case import Address, Case
from moestro.doctor.check import Check
from moestro.doctor.checks import (
    address_space,
    bounded_caches,
    container_memory,
    gpu_tenants,
    huge_pages,
    memory_lock,
    other_engines,
    overcommit,
    plan_fits,
    swap,
)
from moestro.doctor.checks.other_engines import engine_name
from moestro.doctor.examine import examine
from moestro.doctor.host import Host
from moestro.doctor.host_need import HostNeed
from moestro.findings import Finding, Severity
from moestro.hardware.gpu_state import GpuProcess
from moestro.planning import Wishes
from moestro.planning.memory import Line
from moestro.units import GIB, KIB, MIB
from tests.doctor import healthy_memory
from tests.doctor.memory_service_checks import MEMORY, SERVICE
from tests.doctor.setups import Setup
from tests.doctor.setups_memory import (
    LEAF,
    SETUPS,
    host_cache,
    host_weights,
    meminfo,
    with_capacity,
    with_lines,
)
from tests.doctor.workshop import Workshop, gpu_state, inventory, planned

CHECKS = (*MEMORY, *SERVICE)
TROUBLE = (Severity.WARN, Severity.FAIL, Severity.UNKNOWN)


def findings(case: Case, checks: Iterable[Check] = CHECKS) -> list[Finding]:
    return [finding for answer in examine(case, checks) for finding in answer.findings]


def only(case: Case, check: Check) -> Finding:
    (finding,) = check.run(case)
    return finding


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.name)
def test_what_is_broken_is_found(setup: Setup, workshop: Workshop) -> None:
    found = findings(setup.change(workshop))
    named = [finding for finding in found if finding.code == setup.code]
    assert [finding.severity for finding in named] == [setup.severity], found
    assert named[0].evidence
    assert named[0].fix


def test_nothing_is_wrong_with_a_healthy_host(workshop: Workshop) -> None:
    answers = examine(workshop.case(), CHECKS)
    assert [f for a in answers for f in a.findings if f.severity in TROUBLE] == []
    assert [a.check.name for a in answers if not a.findings] == []


@pytest.mark.parametrize("system", ["Linux", "Darwin", "Windows"])
def test_a_host_that_tells_nothing_is_not_blamed(
    system: str, tmp_path: Path, workshop: Workshop
) -> None:
    case = workshop.case(host=Host(root=tmp_path, system=system), gpu_states=None)
    found = [finding for check in CHECKS for finding in check.run(case)]
    assert [f for f in found if f.severity in (Severity.WARN, Severity.FAIL)] == []
    assert all(f.fix for f in found if f.severity is Severity.UNKNOWN)


def test_without_a_plan_and_an_address_there_is_little_to_ask(workshop: Workshop) -> None:
    found = findings(workshop.case(plan=None, address=None, model=None))
    assert {f.severity for f in found} == {Severity.OK}


HOSTILE = {
    "empty": b"",
    "binary": bytes(range(256)) * 8,
    "absurd": b"9" * 400,
    "negative": b"-1\n",
    "words": b"some avg60=x\nSwapTotal: lots kB\n0::/../../etc\n[Service]\nRestart=\n",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_strange_files_trip_nothing_up(content: bytes, workshop: Workshop) -> None:
    case = workshop.case()
    for path in healthy_memory.FILES:
        workshop.write(path, content)
        found = [finding for check in CHECKS for finding in check.run(case)]
        assert not [f for f in found if f.severity is Severity.FAIL], path
        workshop.write(path, healthy_memory.FILES[path])
    for path in healthy_memory.FILES:  # and all of them at once
        workshop.write(path, content)
    assert not [f for c in CHECKS for f in c.run(case) if f.severity is Severity.FAIL]


def test_files_that_may_not_be_read_trip_nothing_up(workshop: Workshop) -> None:
    for path in healthy_memory.FILES:
        workshop.remove(path)
        (workshop.root / path).mkdir()  # reading a folder fails as a file that is refused does
    found = [finding for check in CHECKS for finding in check.run(workshop.case())]
    assert not [f for f in found if f.severity in (Severity.WARN, Severity.FAIL)]


_CHILD = """
import json, resource, sys
from moestro.doctor.examine import examine
from moestro.doctor.host import this_host
from tests.doctor.memory_service_checks import MEMORY, SERVICE
from tests.doctor.workshop import Workshop
from pathlib import Path
case = Workshop(Path(sys.argv[1]), {}).case()
for name, value in json.loads(sys.argv[2]).items():
    hard = resource.getrlimit(getattr(resource, name))[1]
    resource.setrlimit(getattr(resource, name), (value, hard))
from dataclasses import replace
case = replace(case, host=this_host())
found = [f for a in examine(case, (*MEMORY, *SERVICE)) for f in a.findings]
print(json.dumps([[f.code, str(f.severity), f.evidence] for f in found]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limits are Linux's")
def test_low_limits_of_a_real_process_are_found(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    assert hard == resource.RLIM_INFINITY or hard > 2 * GIB
    limits = {"RLIMIT_NOFILE": 128, "RLIMIT_AS": 600 * MIB, "RLIMIT_DATA": 400 * MIB}
    said = subprocess.run(
        [sys.executable, "-c", _CHILD, str(tmp_path), json.dumps(limits)],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = json.loads(said.stdout)
    assert ["too-few-descriptors", "fail"] in [f[:2] for f in found]
    spaces = [f for f in found if f[0] == "address-space-limited"]
    assert [f[1] for f in spaces] == ["fail", "fail"]
    assert "600 MiB" in spaces[0][2]
    assert "400 MiB" in spaces[1][2]
    assert not [f for f in found if f[0].endswith("-unreadable")]


def test_what_a_plan_takes_of_the_host() -> None:
    plan = with_lines(host_weights(10 * GIB), host_cache(2 * GIB))
    need = HostNeed.of(plan)
    host = plan.ledger.device("CPU")
    assert need.total_bytes == host.total_bytes
    assert need.mapped_bytes == host.weights_bytes
    assert need.bound_bytes == host.kind_bytes("prompt cache", "context checkpoints") > GIB
    assert need.file_bytes == plan.model.files[0].size_bytes
    repacked = Line("CPU", "weights", "weights, repacked", GIB, "computed")
    assert HostNeed.of(with_lines(repacked)).resident_bytes > GIB


def test_experts_in_host_memory_are_told(workshop: Workshop) -> None:
    plan = planned(Wishes(cpu_expert_layers=2))
    case = workshop.case(plan=plan)
    told = [f for f in plan_fits.CHECK.run(case) if f.code == "experts-on-host"]
    assert [f.severity for f in told] == [Severity.INFO]
    experts = [t for t in plan.model.tensors if "_exps" in t.name and t.layer in (0, 1)]
    assert "2 layers" in (told[0].evidence or "")
    assert f"{sum(t.size_bytes for t in experts) / MIB:.1f}" in (told[0].evidence or "")
    on_cpu = replace(plan, hardware=replace(plan.hardware, gpus=()))
    found = list(plan_fits.CHECK.run(workshop.case(plan=on_cpu)))
    assert "experts-on-host" not in {f.code for f in found}


def test_memory_that_host_and_gpu_share_is_counted_once(workshop: Workshop) -> None:
    plan = planned()
    memory = replace(plan.hardware.memory, unified=True, available_bytes=2 * GIB)
    shared = replace(plan, hardware=replace(plan.hardware, memory=memory))
    assert shared.ledger.device("CPU").total_bytes < 2 * GIB
    found = list(plan_fits.CHECK.run(workshop.case(plan=shared)))
    assert [f.code for f in found if f.severity is Severity.FAIL] == ["memory-short"]


def test_a_plan_that_the_engine_found_too_large_is_short_whatever_the_ledger_says(
    workshop: Workshop,
) -> None:
    said = Finding(Severity.FAIL, "memory-short", "-", "GPU0 needs 25 GiB of 24 GiB", "-")
    plan = replace(planned(), fits=False, findings=(said,))
    found = only(workshop.case(plan=plan), plan_fits.CHECK)
    assert (found.code, found.evidence) == ("memory-short", said.evidence)


def test_a_margin_that_is_missing_is_not_paging(workshop: Workshop) -> None:
    total = planned().ledger.device("CPU").total_bytes
    plan = with_capacity("CPU", total - 100 * MIB)
    found = only(workshop.case(plan=plan), plan_fits.CHECK)
    assert (found.code, found.severity) == ("memory-short", Severity.FAIL)


def test_caches_that_do_not_fit_are_not_paged_weights(workshop: Workshop) -> None:
    plan = with_lines(host_weights(10 * GIB), host_cache(90 * GIB))
    found = only(workshop.case(plan=plan), plan_fits.CHECK)
    assert (found.code, found.severity) == ("memory-short", Severity.FAIL)


def test_caches_are_not_blamed_for_weights(workshop: Workshop) -> None:
    plan = with_lines(host_weights(90 * GIB))
    assert only(workshop.case(plan=plan), bounded_caches.CHECK).severity is Severity.OK


def test_the_tightest_group_on_the_way_up_counts(workshop: Workshop) -> None:
    workshop.write("sys/fs/cgroup/user.slice/memory.max", f"{40 * GIB}\n")
    workshop.write(f"{LEAF}/memory.max", f"{39 * GIB}\n")
    bound = cgroup.memory_bound(workshop.host())
    assert bound is not None
    # The slice holds more than the leaf: 9.21 GiB less 4.85 GiB of droppable file pages.
    assert (bound.path, bound.limit) == ("sys/fs/cgroup/user.slice", 40 * GIB)
    assert bound.used == 9893421056 - 3812339712 - 1396936704
    assert only(workshop.case(), container_memory.CHECK).severity is Severity.OK


def test_a_container_that_sees_its_own_group_as_the_root(workshop: Workshop) -> None:
    workshop.write("proc/self/cgroup", "0::/system.slice/docker-4f1c.scope\n")
    workshop.write("sys/fs/cgroup/memory.max", f"{20 * GIB}\n")
    bound = cgroup.memory_bound(workshop.host())
    assert bound is not None
    assert (bound.path, bound.used) == ("sys/fs/cgroup", None)
    assert "20.0 GiB" in (only(workshop.case(), container_memory.CHECK).evidence or "")


def test_the_limit_of_version_1_that_means_none(workshop: Workshop) -> None:
    workshop.write("proc/self/cgroup", "4:memory:/\n")
    workshop.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert cgroup.memory_bound(workshop.host()) is None
    found = only(workshop.case(), container_memory.CHECK)
    assert (found.code, found.severity) == ("container-memory", Severity.OK)


@pytest.mark.parametrize("path", ["/../../other", "/a\0b", "/" + "x/" * 500, "relative", ""])
def test_a_strange_group_is_the_root(path: str, workshop: Workshop) -> None:
    workshop.write("proc/self/cgroup", f"0::{path}\n")
    workshop.write("sys/other/memory.max", "4096\n")
    assert cgroup.memory_bound(workshop.host()) is None


def test_a_container_pages_weights_before_it_is_ended(workshop: Workshop) -> None:
    workshop.write(f"{LEAF}/memory.max", f"{30 * GIB}\n")
    found = only(workshop.case(plan=with_lines(host_weights(40 * GIB))), container_memory.CHECK)
    assert found.code == "container-too-small"
    assert "read from disk" in found.title


def test_a_margin_that_a_container_lacks_is_not_paging(workshop: Workshop) -> None:
    need = HostNeed.of(planned())
    for room, code in (
        (need.total_bytes, "container-memory"),
        (need.total_bytes - 1, "container-tight"),
        (need.total_bytes - need.margin_bytes, "container-tight"),
        (need.total_bytes - need.margin_bytes - 1, "container-too-small"),
    ):
        workshop.write("proc/self/cgroup", "0::/\n")
        workshop.write("sys/fs/cgroup/memory.max", f"{room + 4096}\n")
        workshop.write("sys/fs/cgroup/memory.current", "4096\n")
        found = only(workshop.case(), container_memory.CHECK)
        assert found.code == code
    assert found.severity is Severity.FAIL


def test_no_limit_says_what_was_looked_at(workshop: Workshop) -> None:
    found = only(workshop.case(), container_memory.CHECK)
    assert (found.code, found.severity) == ("container-memory", Severity.OK)
    assert "/user.slice/user-1000.slice/session-2.scope" in (found.evidence or "")


def test_locking_matters_only_where_memory_is_short(workshop: Workshop) -> None:
    low = workshop.limited(memlock=64 * KIB)
    roomy = workshop.case(host=low, plan=with_lines(host_weights(20 * GIB)))
    assert only(roomy, memory_lock.CHECK).severity is Severity.OK
    short = workshop.case(host=low, plan=with_lines(host_weights(52 * GIB)))
    found = only(short, memory_lock.CHECK)
    assert (found.code, found.severity) == ("memory-lock-low", Severity.INFO)
    root = workshop.case(host=replace(low, superuser=True), plan=with_lines(host_weights(52 * GIB)))
    assert only(root, memory_lock.CHECK).severity is Severity.OK


def test_old_pages_in_swap_are_no_trouble(workshop: Workshop) -> None:
    workshop.write("proc/meminfo", meminfo(SwapFree=3145728))
    assert only(workshop.case(), swap.CHECK).severity is Severity.OK
    workshop.write("proc/pressure/memory", "some avg10=31.20 avg60=22.50 avg300=8.1 total=9\n")
    found = only(workshop.case(), swap.CHECK)
    assert (found.code, found.severity) == ("swap-in-use", Severity.WARN)


def test_memory_that_is_short_without_swapping_is_not_swaps_matter(workshop: Workshop) -> None:
    workshop.write("proc/meminfo", meminfo(SwapFree=8288604, MemAvailable=2097152))
    assert only(workshop.case(), swap.CHECK).severity is Severity.OK


def test_compressed_memory_as_swap_is_no_trouble(workshop: Workshop) -> None:
    workshop.write("proc/meminfo", meminfo(SwapFree=3145728, MemAvailable=2097152))
    workshop.write("proc/swaps", "Filename Type Size Used Priority\n/dev/zram0 partition 8 5 100\n")
    assert only(workshop.case(), swap.CHECK).severity is Severity.OK


def test_caches_that_only_their_bounds_push_into_swap(workshop: Workshop) -> None:
    machine = inventory()
    small = replace(machine, memory=replace(machine.memory, available_bytes=GIB))
    found = only(workshop.case(inventory=small), swap.CHECK)
    assert (found.code, found.severity) == ("swap-needed", Severity.WARN)


def test_strict_overcommit_with_room_or_without_figures(workshop: Workshop) -> None:
    workshop.write("proc/sys/vm/overcommit_memory", "2\n")
    assert only(workshop.case(), overcommit.CHECK).severity is Severity.OK
    workshop.write("proc/meminfo", "MemTotal: 65758360 kB\n")
    found = only(workshop.case(), overcommit.CHECK)
    assert (found.code, found.severity) == ("overcommit-strict", Severity.UNKNOWN)


def test_a_pool_of_huge_pages_without_sysfs(workshop: Workshop) -> None:
    for path in list(healthy_memory.FILES):
        if path.startswith("sys/kernel/mm/hugepages"):
            workshop.remove(path)
    workshop.write("proc/meminfo", meminfo(HugePages_Total=4096, HugePages_Free=4096))
    found = only(workshop.case(), huge_pages.CHECK)
    assert found.code == "huge-pages-reserved"
    assert "8.00 GiB" in (found.evidence or "")
    assert "sudo sysctl -w vm.nr_hugepages=0" in (found.fix or "")
    used = meminfo(HugePages_Total=4096, HugePages_Free=4096, HugePages_Rsvd=4096)
    workshop.write("proc/meminfo", used)  # promised to a program that has not touched them yet
    assert only(workshop.case(), huge_pages.CHECK).severity is Severity.OK


def test_huge_pages_are_worth_a_word_only_to_much_memory(workshop: Workshop) -> None:
    workshop.write("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n")
    assert only(workshop.case(), huge_pages.CHECK).severity is Severity.OK
    found = only(workshop.case(plan=with_lines(host_cache(6 * GIB))), huge_pages.CHECK)
    assert (found.code, found.severity) == ("huge-pages-off", Severity.INFO)
    assert (found.fix or "").endswith(
        "echo always | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"
    )


def test_each_pool_is_given_back_where_it_is(workshop: Workshop) -> None:
    """The switch of sysctl is for pages of the default size alone."""
    folder = "sys/kernel/mm/hugepages/hugepages-1048576kB"
    workshop.write(f"{folder}/nr_hugepages", "16\n")
    workshop.write(f"{folder}/free_hugepages", "16\n")
    found = only(workshop.case(), huge_pages.CHECK)
    assert found.code == "huge-pages-reserved"
    assert (found.fix or "").endswith(f": echo 0 | sudo tee /{folder}/nr_hugepages")


def test_checkpoints_of_unknown_size_have_no_bound(workshop: Workshop) -> None:
    plan = planned()
    unknown = replace(plan, model=replace(plan.model, layers=None))
    found = only(workshop.case(plan=unknown), bounded_caches.CHECK)
    assert (found.code, found.severity) == ("caches-unbounded", Severity.WARN)


def test_a_screen_on_the_card_is_told_and_no_fault(workshop: Workshop) -> None:
    processes = (GpuProcess(1433, "/usr/bin/gnome-shell", 310 * MIB), GpuProcess(9, None, None))
    found = only(workshop.with_gpu(processes=processes), gpu_tenants.CHECK)
    assert (found.code, found.severity) == ("gpu-shared", Severity.INFO)
    assert "gnome-shell (1433, 310 MiB)" in (found.evidence or "")


def test_memory_that_nobody_visible_holds(workshop: Workshop) -> None:
    machine = inventory()
    gpus = (replace(machine.gpus[0], free_bytes=10 * GIB),)
    case = workshop.case(inventory=replace(machine, gpus=gpus), gpu_states=None)
    found = only(case, gpu_tenants.CHECK)
    assert (found.code, found.severity) == ("gpu-shared", Severity.WARN)
    assert "14.0 GiB" in (found.evidence or "")


def test_a_small_tenant_counts_where_the_plan_lacks_memory(workshop: Workshop) -> None:
    state = replace(gpu_state(), processes=(GpuProcess(5, "a\x1b[31m", 100 * MIB),))
    case = workshop.case(gpu_states=(state,), plan=with_capacity("GPU0", 700 * MIB))
    found = only(case, gpu_tenants.CHECK)
    assert (found.code, found.severity) == ("gpu-shared", Severity.WARN)
    assert "\x1b" not in (found.evidence or "")


def test_a_card_of_which_nothing_is_known(workshop: Workshop) -> None:
    machine = inventory()
    gpus = (replace(machine.gpus[0], free_bytes=None),)
    case = workshop.case(inventory=replace(machine, gpus=gpus), gpu_states=None)
    found = only(case, gpu_tenants.CHECK)
    assert (found.code, found.severity) == ("gpu-tenants-unknown", Severity.UNKNOWN)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/usr/bin/llama-server -m model.gguf", "llama-server"),
        ("ollama serve", "Ollama"),
        ("ollama run qwen3", None),
        ("/venv/bin/python3 /venv/bin/vllm serve Qwen/Qwen3-30B-A3B", "vLLM"),
        ("/venv/bin/python3 /venv/bin/vllm bench latency", None),
        ("python3.12 -m vllm.entrypoints.openai.api_server --model m", "vLLM"),
        ("VLLM::EngineCore", "vLLM"),
        ("python -u -m sglang.launch_server --port 30000", "SGLang"),
        ("python3 koboldcpp.py --model m.gguf", "KoboldCpp"),
        ("./koboldcpp-linux-x64 m.gguf", "KoboldCpp"),
        ("/opt/LM-Studio-0.3.30-2-x64.AppImage", "LM Studio"),
        ("text-generation-launcher --model-id m", "text-generation-inference"),
        ("python3 -m llama_cpp.server --model m.gguf", "llama-cpp-python"),
        ("python3 -P -m moestro.engine.llama_cpp.worker", "moestro"),
        ("vim llama-server.cpp", None),
        ("grep -r ollama serve", None),
        ("python3 -c vllm", None),
        ("python3 train.py vllm serve", None),
        ("python3", None),
        ("", None),
    ],
)
def test_engines_are_known_by_what_they_run(command: str, name: str | None) -> None:
    assert engine_name(command.split(" ")) == name


def test_electron_puts_all_words_into_one() -> None:
    assert engine_name(["/opt/LM Studio/lm-studio --type=zygote --no-sandbox"]) == "LM Studio"


def test_what_this_process_started_is_not_another_engine(workshop: Workshop) -> None:
    worker = "python3 -P -m moestro.engine.llama_cpp.worker"
    for path, text in healthy_memory.process(50001, worker, parent=48213).items():
        workshop.write(path, text)
    assert only(workshop.case(), other_engines.CHECK).severity is Severity.OK
    for path, text in healthy_memory.process(50002, worker, parent=1).items():
        workshop.write(path, text)
    found = only(workshop.case(), other_engines.CHECK)
    assert (found.code, found.severity) == ("moestro-running", Severity.INFO)
    assert "50002" in (found.evidence or "")
    assert "50001" not in (found.evidence or "")
    assert "Stop" not in (found.fix or "")
    for path, text in healthy_memory.process(7301, "ollama serve", own_kb=12 << 20).items():
        workshop.write(path, text)
    both = list(other_engines.CHECK.run(workshop.case()))
    assert [f.code for f in both] == ["moestro-running", "other-engine-running"]
    assert "moestro" not in (both[1].evidence or "")


def test_of_very_many_processes_some_are_looked_at_and_it_is_said(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(other_engines, "_MOST_PROCESSES", 3)
    read: list[str] = []
    plain = Host.data
    monkeypatch.setattr(Host, "data", lambda self, path: (read.append(path), plain(self, path))[1])
    for number in range(50001, 50010):
        for path, text in healthy_memory.process(number, "bash").items():
            workshop.write(path, text)
    found = only(workshop.case(), other_engines.CHECK)
    count = len(list((workshop.root / "proc").glob("[0-9]*")))
    assert f"only 3 of {count} processes" in (found.evidence or "")
    assert sum(path.endswith("/cmdline") for path in read) == 3
    for path, text in healthy_memory.process(50009, "ollama serve").items():
        workshop.write(path, text)
    found = only(workshop.case(), other_engines.CHECK)
    assert (found.code, found.severity) == ("other-engine-running", Severity.INFO)
    assert "only 3 of" in (found.evidence or "")


def test_a_bounded_llama_server_is_worth_a_word(workshop: Workshop) -> None:
    for command in ("llama-server -cram 2048", "llama-server --cache-ram=0", "llama-server"):
        for path, text in healthy_memory.process(7301, command).items():
            workshop.write(path, text)
        assert only(workshop.case(), other_engines.CHECK).severity is Severity.INFO
    workshop.remove("proc/7301/status")  # it ended just now, or is another user's
    assert "process 7301)" in (only(workshop.case(), other_engines.CHECK).evidence or "")


def test_files_count_as_address_space_even_if_weights_go_to_a_gpu(workshop: Workshop) -> None:
    plan = planned()
    large = tuple(replace(file, size_bytes=20 * GIB) for file in plan.model.files)
    plan = replace(plan, model=replace(plan.model, files=large))
    found = only(
        workshop.case(host=workshop.limited(**{"as": 18 * GIB}), plan=plan), address_space.CHECK
    )
    assert found.severity is Severity.FAIL
    unknown = tuple(replace(file, size_bytes=None) for file in plan.model.files)
    plan = replace(plan, model=replace(plan.model, files=unknown))
    assert HostNeed.of(plan).file_bytes is None


def test_limits_that_load_the_model_and_not_its_full_caches(workshop: Workshop) -> None:
    for limit, mib in (("as", 1500), ("data", 1024)):
        case = workshop.case(host=workshop.limited(**{limit: mib * MIB}))
        found = only(case, address_space.CHECK)
        assert (found.code, found.severity) == ("address-space-limited", Severity.WARN)
        assert "caches" in (found.evidence or "")


def test_an_address_alone_needs_no_plan(workshop: Workshop) -> None:
    found = findings(workshop.case(plan=None, address=Address("127.0.0.1", 0)), SERVICE)
    assert not [f for f in found if f.severity in TROUBLE]
