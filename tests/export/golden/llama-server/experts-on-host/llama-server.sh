#!/bin/sh
# Made by moestro from its plan for DeepSeek-V3-Q4_K_M (deepseek2, Q4_K_M)
# on NVIDIA GeForce RTX 4090, 16 cores, 768 GiB of memory.
# The experts of 58 blocks stay in main memory: the last of them is block 60, and blocks
# without experts are counted too.
# For llama.cpp b11549; older releases do not know every flag.
# Every program here may use it, unless its environment has a LLAMA_API_KEY. Web pages of other
# hosts than localhost cannot read its answers: --cors-origins lets them.

exec llama-server \
  --model /srv/models/DeepSeek-V3-Q4_K_M.gguf \
  --alias DeepSeek-V3-Q4_K_M \
  --ctx-size 131072 \
  --parallel 4 \
  --no-kv-unified \
  --cache-type-k f16 \
  --cache-type-v f16 \
  --flash-attn auto \
  --batch-size 2048 \
  --ubatch-size 1024 \
  --cache-ram 1024 \
  --cache-idle-slots \
  --ctx-checkpoints 0 \
  --threads 16 \
  --threads-batch 16 \
  --repack \
  --load-mode auto \
  --gpu-layers 63 \
  --fit off \
  --kv-offload \
  --n-cpu-moe 61 \
  --jinja \
  --host 127.0.0.1 \
  --port 8080 \
  --cors-origins localhost \
  --metrics \
  --no-ui
