"""What runs goes elsewhere: moves that better things, moves that empty hosts, their order, and the calm before them."""
