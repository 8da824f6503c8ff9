"""What guests are plugged into: bridges, VLANs made on demand, the operator's script, and the addresses heard on their wires."""
