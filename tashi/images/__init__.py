"""Disk images: the files of one directory that every host can read."""
