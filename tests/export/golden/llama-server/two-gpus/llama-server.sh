#!/bin/sh
# Made by moestro from its plan for Mixtral-8x7B-Q4_K_M (llama, Q4_K_M)
# on NVIDIA GeForce RTX 4090 and NVIDIA GeForce RTX 3060, 8 cores, 64.0 GiB of memory.
# For llama.cpp b11549; older releases do not know every flag.
# Every program here may use it, unless its environment has a LLAMA_API_KEY. Web pages of other
# hosts than localhost cannot read its answers: --cors-origins lets them.

exec llama-server \
  --model /srv/models/Mixtral-8x7B-Q4_K_M.gguf \
  --alias Mixtral-8x7B-Q4_K_M \
  --ctx-size 32768 \
  --parallel 4 \
  --no-kv-unified \
  --cache-type-k f16 \
  --cache-type-v f16 \
  --flash-attn auto \
  --batch-size 2048 \
  --ubatch-size 512 \
  --cache-ram 1024 \
  --cache-idle-slots \
  --ctx-checkpoints 0 \
  --threads 8 \
  --threads-batch 8 \
  --repack \
  --load-mode auto \
  --gpu-layers 33 \
  --fit off \
  --kv-offload \
  --split-mode layer \
  --tensor-split 22,11 \
  --jinja \
  --host 127.0.0.1 \
  --port 8080 \
  --cors-origins localhost \
  --metrics \
  --no-ui
