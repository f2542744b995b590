#!/bin/sh
# Made by moestro from its plan for Qwen3-30B-A3B-Q4_K_M (qwen3moe, Q4_K_M)
# on 8 cores, 64.0 GiB of memory.
# For llama.cpp b11549; older releases do not know every flag.
# Every program here may use it, unless its environment has a LLAMA_API_KEY. Web pages of other
# hosts than localhost cannot read its answers: --cors-origins lets them.

exec llama-server \
  --model /srv/models/Qwen3-30B-A3B-Q4_K_M.gguf \
  --alias Qwen3-30B-A3B-Q4_K_M \
  --ctx-size 65536 \
  --parallel 4 \
  --kv-unified \
  --cache-type-k q8_0 \
  --cache-type-v q8_0 \
  --flash-attn auto \
  --batch-size 512 \
  --ubatch-size 512 \
  --cache-ram 1024 \
  --cache-idle-slots \
  --ctx-checkpoints 0 \
  --threads 6 \
  --threads-batch 6 \
  --repack \
  --load-mode auto \
  --device none \
  --gpu-layers 0 \
  --fit off \
  --kv-offload \
  --jinja \
  --host 127.0.0.1 \
  --port 8080 \
  --cors-origins localhost \
  --metrics \
  --no-ui
