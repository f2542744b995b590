#!/bin/sh
# Made by moestro from its plan for Qwen3-30B-A3B-Q4_K_M (qwen3moe, Q4_K_M)
# on 8 cores, 64.0 GiB of memory.
#
# Not said here, because there are no words for it:
# - model (Q4_K_M): vLLM reads Hugging Face folders. GGUF needs vllm-gguf-plugin, which is
#   experimental and knows few mixtures of experts: rather give the folder of the original model,
#   or of an FP8 or AWQ version of about the same size.
# - cache_type (q8_0): Keys and values are both kept in fp8, the nearest that every build of vLLM
#   has.
# - prompt_cache_bytes (1.00 GiB of host memory): vLLM keeps prefixes in free pages of the cache
#   itself; --kv-offloading-size adds host memory.
# - ubatch (512): A step of vLLM holds 2,048 tokens: its default, and the least that suits models
#   with recurrent layers.
# - threads (6): vLLM takes its threads from the environment: OMP_NUM_THREADS, and on CPUs
#   VLLM_CPU_OMP_THREADS_BIND.
#
# Options as of vLLM 0.32. The plan's memory was computed for llama.cpp and for its file: of
# another format of the model vLLM takes other amounts, within the bounds below.

exec vllm serve /srv/models/Qwen3-30B-A3B-Q4_K_M.gguf \
  --served-model-name Qwen3-30B-A3B-Q4_K_M \
  --host 127.0.0.1 \
  --port 8080 \
  --max-model-len 16384 \
  --max-num-seqs 4 \
  --max-num-batched-tokens 2048 \
  --kv-cache-dtype fp8 \
  --kv-cache-memory-bytes 3422552064
