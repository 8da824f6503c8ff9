"""`python -m tashi.client` is the `tashi` command."""

import sys

from tashi.client.command import main

sys.exit(main())
