"""Tashi: a control plane that provisions, places, adapts and watches virtual machines on libvirt hosts."""

__version__ = "1.0.0"
