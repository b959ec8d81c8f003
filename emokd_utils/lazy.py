"""Modules that are executed when something of them is first asked for.

Opening kept results needs neither models nor the libraries behind them, which take seconds to
import. So what only *makes* results is imported so (until Python has ``lazy import``, PEP 810).
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType


def lazy(name: str) -> ModuleType:
    """The module ``emokd_utils.<name>``, not executed yet."""
    name = f"emokd_utils.{name}"
    if name not in sys.modules:
        spec = importlib.util.find_spec(name)
        spec.loader = importlib.util.LazyLoader(spec.loader)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]
