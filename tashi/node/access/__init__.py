"""Ways into guests for their owners: serial consoles, screens, and what consoles have said."""
