"""What a healthy workstation's kernel says of its processor, its slots and its sensors: a Ryzen
7950X under Linux 6.14 with an RTX 4090."""

from __future__ import annotations

_CPU = """\
processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 97
model name\t: AMD Ryzen 9 7950X 16-Core Processor
stepping\t: 2
microcode\t: 0xa601206
cpu MHz\t\t: 4491.432
cache size\t: 1024 KB
physical id\t: 0
siblings\t: 32
core id\t\t: 0
cpu cores\t: 16
flags\t\t: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx \
fxsr sse sse2 ht syscall nx mmxext fxsr_opt pdpe1gb rdtscp lm constant_tsc rep_good amd_lbr_v2 \
nopl xtopology nonstop_tsc cpuid extd_apicid aperfmperf rapl pni pclmulqdq monitor ssse3 fma cx16 \
sse4_1 sse4_2 movbe popcnt aes xsave avx f16c rdrand lahf_lm cmp_legacy svm bmi1 avx2 smep bmi2
bogomips\t: 8982.86
clflush size\t: 64
address sizes\t: 48 bits physical, 48 bits virtual
"""

_STAT = """\
cpu  1846231 2311 401877 98122094 21044 0 10377 0 0 0
cpu0 61544 70 14021 3064812 702 0 4120 0 0 0
intr 198877123 0 9 0 0 0 0 0 0 1 0 0
ctxt 402331885
btime 1795300000
processes 301127
procs_running 2
procs_blocked 0
softirq 70111234 12 8071245 9 1042331 802331 0 30112 41233014 0 18931180
"""

_NODE = """\
Node 0 MemTotal:       65536000 kB
Node 0 MemFree:        40120432 kB
Node 0 MemUsed:        25415568 kB
Node 0 SwapCached:            0 kB
Node 0 Active:          8122044 kB
Node 0 Inactive:       12044120 kB
Node 0 Active(file):    3022044 kB
Node 0 Inactive(file): 11044120 kB
Node 0 FilePages:      14920044 kB
Node 0 Mapped:           922044 kB
Node 0 AnonPages:       5100000 kB
Node 0 Shmem:            401220 kB
Node 0 HugePages_Total:     0
Node 0 HugePages_Free:      0
Node 0 HugePages_Surp:      0
"""

_MOUNTS = """\
23 28 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
24 28 0:23 / /proc rw,nosuid,nodev,noexec,relatime shared:14 - proc proc rw
28 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,errors=remount-ro
31 23 0:27 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
38 28 259:1 / /boot/efi rw,relatime shared:31 - vfat /dev/nvme0n1p1 rw,fmask=0077,dmask=0077
"""

_CPU_STAT = """\
usage_usec 4022131
user_usec 3120112
system_usec 902019
nice_usec 0
core_sched.force_idle_usec 0
nr_periods 0
nr_throttled 0
throttled_usec 0
nr_bursts 0
burst_usec 0
"""

GROUP = "sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope"
CPUFREQ = "sys/devices/system/cpu/cpufreq"
CARD = "sys/bus/pci/devices/0000:01:00.0"


def policy(number: int, **changes: str) -> dict[str, str]:
    """One processor's rules of frequency, in kHz."""
    files = {
        "affected_cpus": str(number),
        "cpuinfo_max_freq": "5881000",
        "cpuinfo_min_freq": "545000",
        "energy_performance_available_preferences": (
            "default performance balance_performance balance_power power"
        ),
        "energy_performance_preference": "balance_performance",
        "scaling_available_governors": "performance powersave",
        "scaling_cur_freq": "4491432",
        "scaling_driver": "amd-pstate-epp",
        "scaling_governor": "powersave",
        "scaling_max_freq": "5881000",
        "scaling_min_freq": "545000",
        **changes,
    }
    return {f"{CPUFREQ}/policy{number}/{name}": f"{text}\n" for name, text in files.items()}


def sensors(number: int, name: str, **temperatures: int) -> dict[str, str]:
    """A chip of sensors, in thousandths of a degree: `temp1_input`, `temp1_crit`, …"""
    files = {"name": name, **{key: str(value) for key, value in temperatures.items()}}
    return {f"sys/class/hwmon/hwmon{number}/{key}": f"{text}\n" for key, text in files.items()}


FILES: dict[str, str] = {
    "proc/cpuinfo": _CPU,
    "proc/stat": _STAT,
    "proc/loadavg": "0.42 0.35 0.31 1/1422 30127\n",
    "proc/self/cgroup": "0::/user.slice/user-1000.slice/session-2.scope\n",
    "proc/self/mountinfo": _MOUNTS,
    "proc/sys/kernel/numa_balancing": "0\n",
    "proc/sys/vm/zone_reclaim_mode": "0\n",
    "sys/devices/system/node/has_cpu": "0\n",
    "sys/devices/system/node/node0/meminfo": _NODE,
    "sys/devices/system/cpu/cpufreq/boost": "1\n",
    "sys/class/dmi/id/sys_vendor": "ASUS\n",
    "sys/class/dmi/id/product_name": "System Product Name\n",
    f"{GROUP}/cpu.stat": _CPU_STAT,
    "sys/fs/cgroup/user.slice/cpu.stat": _CPU_STAT,
    f"{CARD}/current_link_speed": "2.5 GT/s PCIe\n",
    f"{CARD}/current_link_width": "16\n",
    f"{CARD}/max_link_speed": "16.0 GT/s PCIe\n",
    f"{CARD}/max_link_width": "16\n",
    **policy(0),
    **policy(1),
    **sensors(0, "nvme", temp1_input=41850, temp1_crit=84850, temp1_max=81850),
    **sensors(3, "k10temp", temp1_input=48250, temp3_input=44000),
}
