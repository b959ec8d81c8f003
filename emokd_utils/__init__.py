"""EmoVLM-KD, one module a lesson.

The method is that of Lee, Lee and Park (CVPRW 2025, doi 10.1109/CVPRW67362.2025.00560).
Modules load on first use, so that ``import emokd_utils`` imports nothing heavy."""

import importlib
import logging
import pkgutil
from types import ModuleType

__version__ = "0.1.0"
__all__ = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_")

# Where it is installed, peft imports it, and it tells each time of a faster kernel for some CPUs.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def __getattr__(name: str) -> ModuleType:
    """Import the module ``emokd_utils.<name>``; AttributeError where there is none."""
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(["__version__", *__all__])
