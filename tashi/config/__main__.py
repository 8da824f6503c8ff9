"""``python -m tashi.config`` prints the defaults file."""

import sys

from tashi.config.defaults_file import defaults_file

sys.stdout.write(defaults_file())
