"""PyTorch and its partners, loaded and prepared for the device of a run."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

from sar_experiments import run_folder
from sar_experiments.config import Device, Precision, processes
from sar_experiments.cores import usable_cores
from sar_experiments.errors import HardwareError

if TYPE_CHECKING:
    import torch

    from sar_experiments.config import Config


def load_libraries() -> None:
    """Import what every heavy task needs.

    Raises:
        HardwareError: They are missing or do not load together; names their versions.
    """
    try:
        for name in ("torch", "torchvision.ops", "detectron2.modeling"):
            importlib.import_module(name)
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        found = run_folder.versions()
        partners = ("torch", "torchvision", "detectron2")
        versions = ", ".join(f"{name} {found[name]}" for name in partners)
        msg = (
            f"{versions} do not load together: {error}. torchvision must be the partner of torch"
            " (2.14 and 0.29, 2.11 and 0.26, ...); make setup installs versions that fit"
        )
        raise HardwareError(msg) from error


def prepare_device(config: Config) -> None:
    """Set PyTorch up for the run's device.

    Raises:
        HardwareError: CUDA was asked for and PyTorch sees none.
    """
    import torch

    count = processes(config)
    if count > 1:  # or each of them would use every core
        torch.set_num_threads(max(1, usable_cores() // count))
    if config.hardware.device is Device.cuda and not torch.cuda.is_available():
        msg = (
            "hardware.device=cuda, but this PyTorch sees no GPU (CUDA_VISIBLE_DEVICES="
            f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'unset')}); check the driver with nvidia-smi"
        )
        raise HardwareError(msg)
    torch.backends.cudnn.benchmark = False  # image sizes vary
    torch.set_float32_matmul_precision("high")
    if config.hardware.deterministic:
        # RoIAlign's backward pass has no deterministic kernel on CUDA: a warning there.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        on_cuda = config.hardware.device is Device.cuda
        torch.use_deterministic_algorithms(True, warn_only=on_cuda)


def autocast_dtype(config: Config) -> torch.dtype | None:
    """Return the type of the forward pass, or None for float32.

    Raises:
        HardwareError: bf16 was asked for and this GPU has none.
    """
    import torch

    wanted = config.hardware.precision
    if config.hardware.device is not Device.cuda or wanted is Precision.fp32:
        return None
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted is Precision.bf16 and not has_bf16:
        msg = "hardware.precision=bf16, but this GPU has no bf16; accepted are fp16 and fp32"
        raise HardwareError(msg)
    if wanted is Precision.fp16:
        return torch.float16
    return torch.bfloat16 if has_bf16 else None
