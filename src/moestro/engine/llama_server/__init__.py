"""Any `llama-server` binary as an engine: a user's own, llama.cpp built here, ik_llama.cpp."""
