"""What things are: immutable records, the table of states, and the messages that carry them."""
