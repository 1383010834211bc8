# Which build of torch: where there is no NVIDIA GPU, the one for the CPU, from PyTorch's own index. The registry has only
# the one with CUDA, ten times as large. Sourced by install.sh and tests/run, which set $constraints.
# shellcheck shell=bash disable=SC2154

torch_cpu_index=${DFI_TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}
nvidia_driver=/proc/driver/nvidia/gpus pci_devices=/sys/bus/pci/devices

# One that works, or a display controller (class 0x03....) by NVIDIA, whose driver may come later.
has_nvidia_gpu() {
    local device
    if nvidia-smi -L >/dev/null 2>&1 || compgen -G "$nvidia_driver/*" >/dev/null; then return; fi
    for device in "$pci_devices"/*; do
        if grep -qsx 0x10de "$device/vendor" && grep -qs ^0x03 "$device/class"; then return; fi
    done
    return 1
}

# torch_is_there PIP...: whether the command PIP... finds the versions of constraints.txt installed.
torch_is_there() { "$@" install -q --no-index --no-deps -c "$constraints" torch torchvision >/dev/null 2>&1; }

torch_version() { sed -n 's/^torch==\([^ ;]*\).*/\1/p' "$constraints"; }

# cpu_index_answers PYTHON: asked once, for seconds, where pip would try again for minutes.
cpu_index_answers() {
    timeout 8 "$1" -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=4)' "$torch_cpu_index/torch/" \
        2>/dev/null
}

# install_cpu_torch PIP...: by the command PIP..., torch and the torchvision that fits it. What they need has versions in
# constraints.txt that PyTorch's index may lack: that is left to the registry.
install_cpu_torch() {
    "$@" install --no-deps --index-url "$torch_cpu_index" -c "$constraints" "torch==$(torch_version)+cpu" torchvision
}

# shellcheck disable=SC2034
no_cpu_torch="No NVIDIA GPU was found, but $torch_cpu_index does not give torch $(torch_version) for the CPU here: the
package registry's is taken, with CUDA."
