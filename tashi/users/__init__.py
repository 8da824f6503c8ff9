"""Where the users of a cell, and those of its machine, are looked up."""
