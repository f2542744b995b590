"""Machines in files, for tests of what is planned for them."""

WEAK_HOST = """
[cpu]
cores = 8
[memory]
size = "64 GiB"
bandwidth = "10 GB/s"
[[gpus]]
name = "rtx-4090"
pcie = "4.0 x16"
"""
"""A host whose memory is slower than its link to the GPU."""
