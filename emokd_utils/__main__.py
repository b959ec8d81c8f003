"""``python -m emokd_utils``."""

import sys

from .cli import process
from .cli.commands import main

process.prepare()
sys.exit(main())
