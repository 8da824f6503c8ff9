"""Where the cluster's records survive: one contract (`tashi.interfaces.IStore`), kept by SQL databases and by memory."""
