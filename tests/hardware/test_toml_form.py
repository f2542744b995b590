from __future__ import annotations

import re
from pathlib import Path

import pytest

from moestro.errors import UsageError
from moestro.hardware import hardware_named
from moestro.hardware.toml_form import read_machine_file
from moestro.units import GIB, MIB

HUGE = "9" * 400
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "describe-a-machine.md"


def file(folder: Path, text: str) -> Path:
    path = folder / "workstation.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_everything_that_can_be_said(tmp_path: Path):
    inventory = read_machine_file(
        file(
            tmp_path,
            """
            name = "the big one"
            system = "Linux"
            [cpu]
            model = "AMD EPYC 9354"
            architecture = "x86_64"
            cores = 32
            instruction_sets = ["AVX2", "AVX-512"]
            numa_nodes = 2
            [memory]
            size = "384 GiB"
            available = "370 GiB"
            swap = "8 GiB"
            kind = "DDR5-4800"
            channels = 12
            [[gpus]]
            name = "rtx-4090"
            count = 2
            pcie = "4.0 x8"
            free = "23000 MiB"
            display = true
            [[gpus]]
            name = "Some new card"
            vendor = "amd"
            memory = "32 GiB"
            bandwidth = "1.2 TB/s"
            target = "gfx1201"
            host_to_device = "20 GB/s"
            tflops_f16 = 200
            [[disks]]
            kind = "nvme"
            free = "500 GiB"
            sequential = "7 GB/s"
            random = "3 GB/s"
            """,
        )
    )
    assert (inventory.name, inventory.source) == ("the big one", "file")
    assert inventory.cpu.usable_cores == 32
    assert inventory.cpu.instruction_sets == ("AVX2", "AVX-512")
    assert inventory.memory.available_bytes == 370 * GIB
    assert inventory.memory.bandwidth is not None
    assert inventory.memory.bandwidth.bytes_per_second == 460.8e9
    assert inventory.memory.bandwidth.source == "computed"
    first, second, third = inventory.gpus
    assert first == second
    assert (first.free_bytes, first.display) == (23000 * MIB, True)
    assert first.link is not None
    assert first.link.width == 8
    assert (third.vendor, third.memory_bytes, third.tflops_f16) == ("amd", 32 * GIB, 200)
    assert third.bandwidth is not None
    assert (third.bandwidth.bytes_per_second, third.bandwidth.source) == (1.2e12, "user")
    assert third.link is not None
    assert third.link.bandwidth is not None
    assert third.link.bandwidth.bytes_per_second == 20e9
    assert inventory.disks[0].random is not None
    assert inventory.findings == ()  # nothing was left to assume


def test_an_empty_file_is_an_assumed_machine(tmp_path: Path):
    inventory = read_machine_file(file(tmp_path, ""))
    assert inventory.name == "workstation"
    assert inventory.gpus == ()
    assert [finding.code for finding in inventory.findings] == ["host-assumed"]


def test_a_whole_machine_of_another_size(tmp_path: Path):
    text = 'machine = "m2-ultra"\n[memory]\nsize = "64 GiB"\n'
    inventory = read_machine_file(file(tmp_path, text))
    assert inventory.gpus[0].memory_bytes == 48 * GIB


@pytest.mark.parametrize(
    ("said", "shared"),
    [
        ('vendor = "apple"', True),
        ('vendor = "apple"\nshared = true', True),
        ('vendor = "amd"\nshared = true', True),
        ('vendor = "amd"\nshared = false', False),
        ('vendor = "nvidia"', False),
    ],
)
def test_a_gpu_in_the_hosts_memory(tmp_path: Path, said: str, shared: bool):
    text = f'[memory]\nsize = "32 GiB"\n[[gpus]]\nname = "X"\nmemory = "24 GiB"\n{said}\n'
    inventory = read_machine_file(file(tmp_path, text))
    (gpu,) = inventory.gpus
    assert (gpu.shared, gpu.memory_bytes) == (shared, 24 * GIB)
    assert inventory.memory.unified is shared


def test_a_shared_gpu_beside_a_card_is_left_out(tmp_path: Path):
    inside = '[[gpus]]\nname = "X"\nvendor = "amd"\nmemory = "8 GiB"\nshared = true\n'
    inventory = read_machine_file(file(tmp_path, inside + '[[gpus]]\nname = "rtx-4090"\n'))
    assert [gpu.name for gpu in inventory.gpus] == ["NVIDIA GeForce RTX 4090"]
    assert "gpu-integrated-left-out" in [finding.code for finding in inventory.findings]


def test_a_machines_own_gpu_beside_a_card_is_left_out(tmp_path: Path):
    text = 'machine = "m2-ultra"\n[[gpus]]\nname = "rtx-4090"\n'
    inventory = read_machine_file(file(tmp_path, text))
    assert [gpu.vendor for gpu in inventory.gpus] == ["nvidia"]
    assert not inventory.memory.unified
    (assumed,) = [found for found in inventory.findings if found.code == "host-assumed"]
    assert "for the GPU" not in (assumed.evidence or "")


def test_more_memory_free_than_there_is_gets_a_hint(tmp_path: Path):
    text = '[memory]\nsize = "8 GiB"\navailable = "9 GiB"\n'
    with pytest.raises(UsageError, match=r"9.00 GiB.*8.00 GiB") as caught:
        read_machine_file(file(tmp_path, text))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # No units: the key is named.
        ("[memory]\nsize = 128", "memory.size lacks its unit: 128"),
        ('[memory]\nsize = "128"', "memory.size lacks its unit: '128'"),
        ("[memory]\nbandwidth = 80", "memory.bandwidth lacks its unit"),
        ('[memory]\nbandwidth = "80"', "memory.bandwidth lacks its unit"),
        ('[memory]\nbandwidth = "80 GiB"', "memory.bandwidth: .*not a bandwidth"),
        ('[[gpus]]\nname = "rtx-4090"\nmemory = 24', r"gpus\[0\].memory lacks its unit"),
        ("[[disks]]\nfree = 5", r"disks\[0\].free lacks its unit"),
        ('[memory]\nsize = "128 G"', "memory.size: .*not a size"),
        ('[memory]\nsize = ""', "memory.size lacks its unit"),
        # Keys.
        ('[memory]\nsizes = "128 GiB"', "memory.sizes is not a key known here"),
        ("nonsense = 1", "nonsense is not a key known here"),
        ("[[gpus]]\ncount = 2", r"gpus\[0\] has no name"),
        ('[[gpus]]\nname = "rtx-4090"\nspeed = 2', r"gpus\[0\].speed is not a key"),
        # Types and values.
        ("[cpu]\ncores = 0", "cpu.cores must be above zero"),
        ('[cpu]\ncores = "8"', "cpu.cores must be a whole number"),
        ("[cpu]\ncores = true", "cpu.cores must be a whole number"),
        ("[cpu]\ninstruction_sets = [1]", "cpu.instruction_sets must be a list"),
        ("cpu = 5", "“cpu” must be a table"),
        ("gpus = 5", r"gpus must be written as \[\[gpus\]\]"),
        ("gpus = [5]", r"“gpus\[0\]” must be a table"),
        ('system = "BeOS"', "system must be one of"),
        ('[memory]\nkind = "DDR5"', "memory.kind must be like DDR5-5600"),
        ('[memory]\nsize = "8 GiB"\navailable = "9 GiB"', "More memory"),
        ('[memory]\nsize = "0 GiB"', "zero"),
        ('[[gpus]]\nname = "rtx-4090"\nfree = "30 GiB"', "cannot be above"),
        ('[[gpus]]\nname = "rtx-4090"\npcie = "fast"', "not a PCIe link"),
        ('[[gpus]]\nname = "rtx-4090"\ncapability = "ada"', "not a compute capability"),
        ('[[gpus]]\nname = "rtx-4090"\ncount = 65', "at most 64"),
        ('[[gpus]]\nname = "rtx-4090"\ntflops_f16 = "fast"', "must be a number"),
        ('[[gpus]]\nname = "rtx-4090"\ntflops_f16 = -1', "above zero"),
        ('[[gpus]]\nname = "X"\nvendor = "matrox"', "must be one of nvidia"),
        ('[[gpus]]\nname = "no such card"', r"gpus\[0\].name: .*not hardware known here"),
        ('[[gpus]]\nname = "m2-ultra"', "whole machine"),
        ('machine = "rtx-4090"', "is a GPU"),
        ('[[disks]]\nkind = "tape"', "must be one of nvme"),
        # A GPU in the host's memory.
        ('[[gpus]]\nname = "rtx-4090"\nshared = "yes"', r"gpus\[0\].shared must be true or false"),
        (
            '[[gpus]]\nname = "X"\nvendor = "apple"\nmemory = "8 GiB"\nshared = false',
            r"gpus\[0\].shared: Apple",
        ),
        (
            '[[gpus]]\nname = "X"\nvendor = "apple"\nmemory = "8 GiB"\npcie = "4.0 x8"',
            r"gpus\[0\].pcie: a GPU that shares",
        ),
        (
            '[[gpus]]\nname = "X"\nvendor = "apple"\nmemory = "8 GiB"\nfree = "7 GiB"',
            r"gpus\[0\].free: a GPU that shares",
        ),
        (
            '[memory]\nsize = "8 GiB"\n[[gpus]]\nname = "X"\nvendor = "apple"\nmemory = "9 GiB"',
            "cannot share more memory",
        ),
        # Numbers that would overflow sooner or later.
        (f"[cpu]\ncores = {HUGE}", "cpu.cores cannot be as large"),
        (f"[cpu]\ncores = {HUGE * 20}", "is not TOML"),
        (f"[cpu]\ncores = 0x{'f' * 5000}", "cpu.cores cannot be as large"),
        (f"[cpu]\ncores = -0x{'f' * 5000}", "is not TOML"),
        (f'[memory]\nsize = "{HUGE} GiB"', "memory.size: .*more than any machine"),
        (f'[memory]\nbandwidth = "{HUGE} GB/s"', "memory.bandwidth: .*more than any machine"),
        (f'[[gpus]]\nname = "rtx-4090"\ntflops_f16 = {HUGE}', "cannot be as large"),
        ('[[gpus]]\nname = "rtx-4090"\ntflops_f16 = inf', "cannot be as large"),
        ("x = " + "[" * 5000, "too deeply|is not TOML"),
        ("[memory", "is not TOML"),
        ("x" * (2 << 20), "too large"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: str):
    with pytest.raises(UsageError, match=words) as caught:
        read_machine_file(file(tmp_path, text))
    assert "workstation.toml" in caught.value.sentence


def test_a_misspelt_key_gets_a_suggestion(tmp_path: Path):
    with pytest.raises(UsageError) as caught:
        read_machine_file(file(tmp_path, "[memory]\nchanels = 2\n"))
    assert "Did you mean channels?" in (caught.value.hint or "")


def test_the_hint_names_each_key_once(tmp_path: Path):
    with pytest.raises(UsageError) as caught:
        read_machine_file(file(tmp_path, "nonsense = 1\n[[gpus]]\nname = 'rtx-4090'\n"))
    keys = (caught.value.hint or "").removeprefix("Known are ").rstrip(".").split(", ")
    assert sorted(keys) == sorted(("machine", "name", "system", "cpu", "memory", "gpus", "disks"))


def test_files_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(UsageError, match="No such file"):
        hardware_named(str(tmp_path / "none.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        hardware_named(str(tmp_path / "folder.toml"))
    with pytest.raises(UsageError, match="nobody here"):
        hardware_named("~no-such-user-here/x.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not TOML"):
        hardware_named(str(tmp_path / "binary.toml"))


def test_the_guides_examples_work(tmp_path: Path):
    """Every TOML block and every --hardware line of the guide."""
    text = GUIDE.read_text(encoding="utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    lines = re.findall(r'--hardware ("[^"]+"|[\w-]+)(?=[\s`])', text)
    assert len(blocks) >= 2
    assert len(lines) >= 2
    for block in blocks:
        read_machine_file(file(tmp_path, block))
    for line in lines:
        if not line.endswith(".toml"):
            hardware_named(line.strip('"'))
