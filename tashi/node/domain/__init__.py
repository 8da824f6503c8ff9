"""What a domain is, as libvirt reads it. Pure: orders and descriptions in, XML out."""
