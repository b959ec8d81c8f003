"""A run: kept results, the stages that make them, where images come from, and what they show."""

from .environment import named_profile
from .run import Run, open_run
from .store import NotMadeError

__all__ = ["NotMadeError", "Run", "named_profile", "open_run"]
