"""Which host each that waits goes to: the queue, and how each policy tells the best host."""
