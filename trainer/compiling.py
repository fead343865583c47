"""A model in, its blocks compiled by torch.compile, or one line that says why not, out.

Each block is compiled on its own: they share one compilation, and the loss, which has its own
chunks, is left as it is.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import shutil
import sysconfig
from pathlib import Path

import torch

from .config import Compile
from .model import Transformer

logger = logging.getLogger(__name__)


def compile_blocks(model: Transformer, setting: Compile, *, tell: bool = True) -> bool:
    """Compile every block with torch.compile; the first step then takes longer.

    Args:
        setting: on: always; auto: on GPUs, where a long training gains, but not on CPUs, where
            the minute that it takes comes back late; off: never. Without a compiler the blocks
            stay as they are, and one line says so.
        tell: whether this rank writes that line.

    Returns:
        Whether the blocks are compiled.
    """
    kind = model.device.type
    if setting == "off" or (setting == "auto" and kind == "cpu"):
        return False
    missing = why_not(kind)
    if missing is not None:
        if tell:
            logger.warning("training.compile is skipped: %s", missing)
        return False
    for block in model.blocks:
        block.compile(dynamic=False)
    if tell:
        logger.info("torch.compile works on the blocks during the first step: about a minute")
    return True


@functools.cache
def why_not(kind: str) -> str | None:
    """Return what torch.compile lacks on this machine to compile for cpu or cuda; None: nothing."""
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++")), None)
    if compiler is None or shutil.which(compiler) is None:
        return "no C++ compiler is found (install g++, or name one in CXX)"
    headers = Path(sysconfig.get_paths()["include"])
    if not (headers / "Python.h").is_file():
        return f"the headers of Python are not installed ({headers}/Python.h; python3-dev)"
    libraries = Path(torch.__file__).parent
    if kind == "cpu" and " " in f"{libraries}{headers}":
        return (
            f"torch does not quote the folders that it gives to {compiler}, and one has a space in "
            f"its name ({libraries}); install into another folder"
        )
    if kind == "cuda":
        if importlib.util.find_spec("triton") is None:
            return "triton is not installed (pip install triton)"
        if torch.cuda.get_device_capability() < (7, 0):
            return "the GPU is too old for triton"
    return None
