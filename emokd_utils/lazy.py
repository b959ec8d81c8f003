"""Modules that are imported when something of them is first asked for.

Opening kept results needs neither models nor the libraries behind them, which take seconds to
import. So what only *makes* results is imported so (until Python has ``lazy import``, PEP 810)."""

import importlib
from typing import Any


class lazy:
    """The module ``emokd_utils.<name>``, imported with its first attribute."""

    def __init__(self, name: str) -> None:
        self._name = f"emokd_utils.{name}"

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)
