"""The cluster manager: wishes come in, one planning step decides, orders go out, sightings come back, events tell of it all."""
