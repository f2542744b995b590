"""What is this machine? Facts only; knows nothing of models."""

from moestro.hardware.graphics import Gpu, Graphics, find_graphics
from moestro.hardware.machine import Machine, this_machine

__all__ = ["Gpu", "Graphics", "Machine", "find_graphics", "this_machine"]
