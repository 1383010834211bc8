#!/bin/bash
# gpu.sh [DEVICE [FACES]]: what docs/performance.md says of a CPU, of a GPU, in one run of a few minutes: `dfi bench` (the
# reference, edits with the predictor and without), and several frames in one pass. DEVICE: cuda (default), mps or cpu.
# DFI_PYTHON: the Python of the environment that has dfi (default: python3).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${DFI_PYTHON:-python3} device=${1:-cuda} faces=${2:-4}
if [ "$device" = cuda ]; then nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader; fi
"$python" -c 'import torch; print("torch", torch.__version__)'
"$python" -m dfi_server bench --store starter --device "$device" --faces "$faces"
"$python" benchmarks/speed/device_batch.py --store starter --device "$device"
