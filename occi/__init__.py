"""The OCCI door: what a provisioning message means, and the sink that turns messages into commands."""
