"""Engines compiled on the machine that runs them: llama.cpp and ik_llama.cpp as `llama-server`.

One build is one line: the tools are looked for, the source is brought, CMake is given options for
this host, the compiler runs, the program is tried, and only then does it move to its final place
with a record of what it is. `make.py` is that line; every other file is one of its nouns.
"""
