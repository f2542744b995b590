"""What is this machine, and how fast is it really? Facts only; knows nothing of models."""

from moestro.hardware.bandwidth import Bandwidth
from moestro.hardware.cpu import Cpu
from moestro.hardware.disk import Disk, disk_of
from moestro.hardware.gpu import Gpu, Link
from moestro.hardware.graphics import Graphics, find_graphics
from moestro.hardware.inventory import Inventory
from moestro.hardware.memory import Memory
from moestro.hardware.named import hardware_named
from moestro.hardware.this_machine import this_inventory

__all__ = [
    "Bandwidth",
    "Cpu",
    "Disk",
    "Gpu",
    "Graphics",
    "Inventory",
    "Link",
    "Memory",
    "disk_of",
    "find_graphics",
    "hardware_named",
    "this_inventory",
]
