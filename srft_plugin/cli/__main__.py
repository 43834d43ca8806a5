"""`python -m srft_plugin.cli`: the `srft` command without an installed script."""

import sys

from . import main

sys.exit(main())
