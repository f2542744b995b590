#!/bin/sh
# Made by moestro from its plan for Qwen3.6-35B-A3B-Q4_K_M (qwen35moe, Q4_K_M)
# on NVIDIA GeForce RTX 4090, 8 cores, 64.0 GiB of memory.
#
# Not said here, because there are no words for it:
# - model (Q4_K_M): vLLM reads Hugging Face folders. GGUF needs vllm-gguf-plugin, which is
#   experimental and knows few mixtures of experts: rather give the folder of the original model,
#   or of an FP8 or AWQ version of about the same size.
# - unified (an equal part of the cache for each stream): All streams share vLLM's pages; when
#   they run out, one waits and is read again.
# - prompt_cache_bytes (1.00 GiB of host memory): vLLM keeps prefixes in free pages of the cache
#   itself; --kv-offloading-size adds host memory.
# - context_checkpoints (2): vLLM keeps states of recurrent layers in the cache's own pages, as
#   many as fit.
# - ubatch (512): A step of vLLM holds 2,048 tokens: its default, and the least that suits models
#   with recurrent layers.
# - threads (8): vLLM takes its threads from the environment: OMP_NUM_THREADS, and on CPUs
#   VLLM_CPU_OMP_THREADS_BIND.
#
# Options as of vLLM 0.32. The plan's memory was computed for llama.cpp and for its file: of
# another format of the model vLLM takes other amounts, within the bounds below.

exec vllm serve /srv/models/Qwen3.6-35B-A3B-Q4_K_M.gguf \
  --served-model-name Qwen3.6-35B-A3B-Q4_K_M \
  --host 127.0.0.1 \
  --port 8080 \
  --max-model-len 8192 \
  --max-num-seqs 4 \
  --max-num-batched-tokens 2048 \
  --gpu-memory-utilization 0.95 \
  --speculative-config '{"method": "mtp", "num_speculative_tokens": 2}'
