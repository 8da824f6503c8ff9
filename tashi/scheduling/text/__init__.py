"""Snapshots and plans as text: what a person can write and read, and Ganeti's format."""
