"""VGG-19 (Simonyan & Zisserman, arXiv 1409.1556) as the feature map phi of the paper.

The architecture is torchvision's. Channel widths are read off the weights, so that a narrower network of the
same shape loads through the same door.
"""

import hashlib
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from dfi_server.errors import DFIError, ErrorCode

LAYERS = ("relu3_1", "relu4_1", "relu5_1")
"""The layers of phi (paper, section 4: "conv3_1, conv4_1 and conv5_1", taken after their ReLU)."""

SCALES = (4, 8, 16)
"""Pixels of the image to one place of each layer, across and down; what is left over at the end has none."""

# Positions in torchvision's vgg19().features, which is not imported: that takes as long as torch itself.
_RELU_INDEX = {11: "relu3_1", 20: "relu4_1", 29: "relu5_1"}
_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28)  # conv1_1 ... conv5_1
_VGG19_WIDTH = 512  # channels of conv5_1
_POOLS = (4, 9, 18, 27)
# torchvision.transforms' ImageNet convention, which torchvision's VGG-19 weights expect.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)

ENERGY_FLOOR = 1e-12
"""What features' energy is taken for at least where something is divided by it."""

Features = tuple[Tensor, Tensor, Tensor]
"""relu3_1 (N, C3, H/4, W/4), relu4_1 (N, C4, H/8, W/8), relu5_1 (N, C5, H/16, W/16)."""


class VGGFeatures(nn.Module):
    """The feature map phi: an image (N, 3, H, W), RGB in [0, 1], to relu3_1, relu4_1 and relu5_1.

    H and W are at least 16. The layers come back in the network's own precision.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        """Take the convolutions conv1_1 to conv5_1 from `weights` (see `read_weights`)."""
        super().__init__()
        self.features = nn.Sequential(*(_module(i, weights) for i in range(max(_RELU_INDEX) + 1)))
        self.load_state_dict(dict(weights))
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @property
    def precision(self) -> torch.dtype:
        weight: Tensor = next(self.features.parameters())
        return weight.dtype

    @property
    def is_vgg19(self) -> bool:
        """Whether it is as wide as VGG-19, whoever trained it."""
        conv5_1 = self.features[_CONVOLUTIONS[-1]]
        return isinstance(conv5_1, nn.Conv2d) and conv5_1.out_channels == _VGG19_WIDTH

    def autocast(self) -> AbstractContextManager[object]:
        """In its context other networks, of float32 parameters, compute in this one's precision."""
        if self.precision == torch.float32:
            return nullcontext()
        return torch.autocast(self.mean.device.type, self.precision)

    def forward(self, image: Tensor) -> Features:
        x = ((image - self.mean) / self.std).to(self.precision, memory_format=torch.channels_last)
        taps = []
        for i, module in enumerate(self.features):
            x = module(x)
            if i in _RELU_INDEX:
                taps.append(x)
        return taps[0], taps[1], taps[2]


def _module(position: int, weights: Mapping[str, Tensor]) -> nn.Module:
    if position in _POOLS:
        return nn.MaxPool2d(2)
    if position in _CONVOLUTIONS:
        out, channels, *_ = weights[f"features.{position}.weight"].shape
        return nn.Conv2d(channels, out, 3, padding=1)
    return nn.ReLU(inplace=True)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read VGG-19 weights with torchvision's key names, up to conv5_1, as float32.

    `path` is a .safetensors file or a state dict saved by torch (.pth), whole or truncated after conv5_1; the
    classifier and later convolutions are left out. Raises DFIError(BAD_WEIGHTS) for anything else.
    """
    if not path.is_file():
        raise DFIError(ErrorCode.BAD_WEIGHTS, f"There is no weights file at {path}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is wrong is said below, in one sentence
            if path.suffix == ".safetensors":
                state = safetensors.torch.load_file(path)
            else:
                state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle makes its reader raise nearly anything
        raise DFIError(
            ErrorCode.BAD_WEIGHTS,
            f"{path} is not a weights file that can be read (damaged, or not a state dict): fetch it again.",
        ) from error
    return _canonical(state, str(path))


def download_weights() -> dict[str, Tensor]:
    """torchvision's ImageNet weights, through torchvision's own cache and hash check; as `read_weights`.

    Raises DFIError(UNREACHABLE) where they cannot be downloaded, DFIError(BAD_WEIGHTS) where the copy is damaged.
    """
    from torchvision.models import VGG19_Weights

    published = VGG19_Weights.IMAGENET1K_V1
    cached = Path(torch.hub.get_dir(), "checkpoints", Path(published.url).name)
    try:
        state = published.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except Exception as error:  # network, disk, a wrong hash, or whatever a damaged pickle raises
        if cached.exists():  # torch puts a download in place only when it is whole, so this came later
            raise DFIError(
                ErrorCode.BAD_WEIGHTS, f"The weights in {cached} are damaged: delete that file and try again."
            ) from error
        raise DFIError(
            ErrorCode.UNREACHABLE,
            f"VGG-19's weights could not be downloaded ({error}). Try again, or give a file: dfi setup --vgg19 FILE.",
        ) from error
    return _canonical(state, str(cached))


def _canonical(state: object, source: str) -> dict[str, Tensor]:
    """Keep the convolutions that phi uses, in order, in float32; check every shape."""
    weights: dict[str, Tensor] = {}
    channels = 3
    for i in _CONVOLUTIONS:
        for kind in ("weight", "bias"):
            key = f"features.{i}.{kind}"
            tensor = state.get(key) if isinstance(state, Mapping) else None
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                raise DFIError(
                    ErrorCode.BAD_WEIGHTS,
                    f"{source} lacks {key}: it is not a VGG-19 with torchvision's key names up to conv5_1.",
                )
            weights[key] = tensor.detach().to("cpu", torch.float32).contiguous()
        weight, bias = weights[f"features.{i}.weight"], weights[f"features.{i}.bias"]
        if weight.shape[1:] != (channels, 3, 3) or bias.shape != weight.shape[:1]:
            raise DFIError(ErrorCode.BAD_WEIGHTS, f"{source} has a features.{i} of the wrong shape for VGG-19.")
        if not (weight.isfinite().all() and bias.isfinite().all()):
            raise DFIError(ErrorCode.BAD_WEIGHTS, f"{source} has values in features.{i} that are not finite.")
        channels = weight.shape[0]
    return weights


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of the weights' values as float32, the same whichever file format they came in."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        digest.update(f"{key}{tuple(weights[key].shape)}".encode())
        digest.update(weights[key].float().numpy().tobytes())
    return digest.hexdigest()


def choose_device(name: str = "auto") -> torch.device:
    """`auto`: CUDA, else Apple's MPS, else the CPU. Raises DFIError(BAD_REQUEST) for a device that is not here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(name, False):
        usable = ", ".join(key for key, here in available.items() if here)
        raise DFIError(ErrorCode.BAD_REQUEST, f"There is no device '{name}' here; use one of: auto, {usable}.")
    return torch.device(name)


def choose_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies matrices in it by hardware, float32 elsewhere."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"):
            return torch.bfloat16
    return torch.float32


def load(weights: Mapping[str, Tensor], device: torch.device, precision: torch.dtype | None = None) -> VGGFeatures:
    """The feature map on `device`, in the precision that suits it, weights laid out channels last."""
    network = VGGFeatures(weights)
    network.features.to(precision or choose_precision(device))
    return network.to(device).to(memory_format=torch.channels_last)
