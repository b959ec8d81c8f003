"""``python -m emokd_utils``."""

import sys

from .cli.commands import main

sys.exit(main())
