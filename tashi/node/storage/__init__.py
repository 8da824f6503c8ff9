"""What guests keep: images, overlays over them, copies of their own, scratch space, and whose each of these is."""
