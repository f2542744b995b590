#!/bin/sh
# Made by moestro from its plan for moestro-demo (qwen35moe, F16)
# on 8 cores, 64.0 GiB of memory.
# For llama.cpp b11549; older releases do not know every flag.
# Every program here may use it, unless its environment has a LLAMA_API_KEY. Web pages of other
# hosts than localhost cannot read its answers: --cors-origins lets them.

exec llama-server \
  --model /srv/models/moestro-demo.gguf \
  --alias moestro-demo \
  --ctx-size 16384 \
  --parallel 4 \
  --no-kv-unified \
  --cache-type-k f16 \
  --cache-type-v f16 \
  --flash-attn auto \
  --batch-size 512 \
  --ubatch-size 512 \
  --cache-ram 1024 \
  --cache-idle-slots \
  --ctx-checkpoints 8 \
  --threads 8 \
  --threads-batch 8 \
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
