"""What a healthy workstation's kernel says of its memory and its limits: 64 GiB, a desktop, nothing
else that runs models."""

_GROUP = "user.slice/user-1000.slice/session-2.scope"
_CGROUP = "sys/fs/cgroup/user.slice"

MEMINFO = """\
MemTotal:       65758360 kB
MemFree:        41822764 kB
MemAvailable:   58720256 kB
Buffers:          412340 kB
Cached:         16903428 kB
SwapCached:            0 kB
Active:          7203516 kB
Inactive:       14212388 kB
Active(anon):    4361804 kB
Inactive(anon):        0 kB
Active(file):    2841712 kB
Inactive(file): 14212388 kB
Unevictable:       98304 kB
Mlocked:              64 kB
SwapTotal:       8388604 kB
SwapFree:        8388604 kB
Zswap:                 0 kB
Zswapped:              0 kB
Dirty:               612 kB
Writeback:             0 kB
AnonPages:       4198524 kB
Mapped:          1320716 kB
Shmem:            198304 kB
KReclaimable:    1102844 kB
Slab:            1604212 kB
SReclaimable:    1102844 kB
SUnreclaim:       501368 kB
KernelStack:       21664 kB
PageTables:        58480 kB
SecPageTables:         0 kB
NFS_Unstable:          0 kB
Bounce:                0 kB
WritebackTmp:          0 kB
CommitLimit:    41267784 kB
Committed_AS:   13204512 kB
VmallocTotal:   34359738367 kB
VmallocUsed:      262144 kB
VmallocChunk:          0 kB
Percpu:            29440 kB
HardwareCorrupted:     0 kB
AnonHugePages:   1105920 kB
ShmemHugePages:        0 kB
ShmemPmdMapped:        0 kB
FileHugePages:         0 kB
FilePmdMapped:         0 kB
HugePages_Total:       0
HugePages_Free:        0
HugePages_Rsvd:        0
HugePages_Surp:        0
Hugepagesize:       2048 kB
Hugetlb:               0 kB
DirectMap4k:      892404 kB
DirectMap2M:    21000192 kB
DirectMap1G:    45088768 kB
"""

STATUS = """\
Name:\tpython3
Umask:\t0002
State:\tR (running)
Tgid:\t48213
Ngid:\t0
Pid:\t48213
PPid:\t41007
TracerPid:\t0
Uid:\t1000\t1000\t1000\t1000
Gid:\t1000\t1000\t1000\t1000
FDSize:\t64
Groups:\t4 27 44 1000
VmPeak:\t  287880 kB
VmSize:\t  222344 kB
VmLck:\t       0 kB
VmRSS:\t   51756 kB
RssAnon:\t   35624 kB
RssFile:\t   16132 kB
RssShmem:\t       0 kB
VmSwap:\t       0 kB
Threads:\t5
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t000001ffffffffff
CapAmb:\t0000000000000000
NoNewPrivs:\t0
Seccomp:\t0
"""


def process(pid: int, command: str, *, own_kb: int = 4096, parent: int = 1) -> dict[str, str]:
    """The files of one process; blanks in `command` separate its words."""
    words = command.split()
    return {
        f"proc/{pid}/cmdline": "".join(f"{word}\0" for word in words),
        f"proc/{pid}/status": (
            f"Name:\t{words[0].rsplit('/', 1)[-1][:15]}\nUmask:\t0022\nState:\tS (sleeping)\n"
            f"Tgid:\t{pid}\nPid:\t{pid}\nPPid:\t{parent}\nVmRSS:\t{own_kb + 9000:8d} kB\n"
            f"RssAnon:\t{own_kb:8d} kB\nRssFile:\t    9000 kB\nRssShmem:\t       0 kB\n"
            f"VmSwap:\t       0 kB\nThreads:\t4\n"
        ),
    }


def _pool(size_kb: int) -> dict[str, str]:
    folder = f"sys/kernel/mm/hugepages/hugepages-{size_kb}kB"
    names = ("nr_hugepages", "free_hugepages", "resv_hugepages", "surplus_hugepages")
    return {f"{folder}/{name}": "0\n" for name in names}


FILES: dict[str, str] = {
    "proc/meminfo": MEMINFO,
    "proc/vmstat": (
        "nr_free_pages 10455691\nnr_zone_inactive_anon 0\nnr_zone_active_anon 1090451\n"
        "nr_mlock 16\nworkingset_refault_anon 0\nworkingset_refault_file 0\n"
        "pgpgin 20419322\npgpgout 18823101\npswpin 0\npswpout 0\npgfault 91823311\n"
        "pgmajfault 18234\noom_kill 0\nthp_fault_alloc 10231\nthp_fault_fallback 0\n"
    ),
    "proc/swaps": (
        "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
        "/swap.img                               file\t\t8388604\t\t0\t\t-2\n"
    ),
    "proc/pressure/memory": (
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=18234\n"
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=16120\n"
    ),
    "proc/sys/vm/overcommit_memory": "0\n",
    "proc/sys/vm/overcommit_ratio": "50\n",
    "proc/sys/vm/overcommit_kbytes": "0\n",
    "proc/sys/vm/swappiness": "60\n",
    "proc/sys/vm/nr_hugepages": "0\n",
    "proc/sys/kernel/core_pattern": "|/usr/share/apport/apport -p%p -s%s -c%c -d%d -P%P -u%u -g%g "
    "-F%F -- %E\n",
    "proc/sys/kernel/pid_max": "4194304\n",
    "proc/sys/kernel/threads-max": "513268\n",
    "proc/sys/net/ipv4/ip_unprivileged_port_start": "1024\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "sys/kernel/mm/transparent_hugepage/defrag": "always defer defer+madvise [madvise] never\n",
    **_pool(2048),
    **_pool(1048576),
    "proc/self/cgroup": f"0::/{_GROUP}\n",
    "proc/self/coredump_filter": "00000033\n",
    "proc/self/status": STATUS,
    "proc/self/cmdline": "/home/ada/moestro/bin/python3\0/home/ada/moestro/bin/moestro\0doctor\0",
    f"{_CGROUP}/memory.max": "max\n",
    f"{_CGROUP}/memory.high": "max\n",
    f"{_CGROUP}/memory.swap.max": "max\n",
    f"{_CGROUP}/memory.current": "9893421056\n",
    f"{_CGROUP}/memory.stat": (
        "anon 4299161600\nfile 5412339712\nkernel 180355072\nshmem 203063296\n"
        "inactive_file 3812339712\nactive_file 1396936704\nslab_reclaimable 110434304\n"
    ),
    f"{_CGROUP}/user-1000.slice/pids.max": "169378\n",
    f"{_CGROUP}/user-1000.slice/pids.current": "1204\n",
    f"{_CGROUP}/user-1000.slice/memory.max": "max\n",
    f"{_CGROUP}/user-1000.slice/memory.current": "9412313088\n",
    f"sys/fs/cgroup/{_GROUP}/memory.max": "max\n",
    f"sys/fs/cgroup/{_GROUP}/memory.high": "max\n",
    f"sys/fs/cgroup/{_GROUP}/memory.current": "214958080\n",
    f"sys/fs/cgroup/{_GROUP}/pids.max": "max\n",
    f"sys/fs/cgroup/{_GROUP}/pids.current": "9\n",
    **process(1, "/sbin/init splash", parent=0),
    **process(1433, "/usr/bin/gnome-shell", own_kb=412340),
    **process(41007, "bash"),
    **process(48213, "/home/ada/moestro/bin/python3 /home/ada/moestro/bin/moestro doctor"),
    # Kernel threads have no command line.
    "proc/92/cmdline": "",
    "proc/92/status": "Name:\tkworker/11:1H-kblockd\nPid:\t92\nPPid:\t2\n",
}
