"""`python -m sparsetune` is the command, too: where its script lies on no path."""

import sys

from .start import main

sys.exit(main())
