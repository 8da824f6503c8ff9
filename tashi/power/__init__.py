"""How hosts are switched on and off: one driver a module, each an `tashi.interfaces.IPower`."""
