"""llama.cpp as the engine, through `xllamacpp`: the only importer of it, and the only ctypes."""
