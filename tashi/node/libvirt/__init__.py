"""All that speaks to libvirt; nothing else does."""
