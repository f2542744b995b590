"""How fast memory and disks really are: short measurements, each with its threads and sizes."""

from moestro.hardware.measure.disk import measure_disk
from moestro.hardware.measure.figure import Figure
from moestro.hardware.measure.memory import measure_memory

__all__ = ["Figure", "measure_disk", "measure_memory"]
