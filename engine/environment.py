"""The numerics environment: what, beside the config, decides the last bits of a result.

Each of these was seen to change bits (threads, instruction set, oneDNN) or may do so (versions,
flags, device). Its digest stands in every record and in no key.
"""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "numpy", "pyarrow", "safetensors")
"""Those whose code makes the bytes of a stage."""

_VARIABLES = ("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR",
              "CUBLAS_WORKSPACE_CONFIG", "MKL_ENABLE_INSTRUCTIONS")  # fmt: skip


def numerics_environment(device: torch.device) -> dict[str, Any]:
    """Plain JSON: versions, processor, threads, flags and, on a GPU, its name and libraries."""
    environment: dict[str, Any] = {
        "device": device.type,
        "machine": platform.machine(),
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "mkldnn": bool(torch.backends.mkldnn.enabled),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }
    if device.type == "cuda":
        environment |= {
            "gpu": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        }
    return environment


@cache
def _processor() -> str:
    """The processor's model: kernels are chosen by it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor()
