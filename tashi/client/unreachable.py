"""The one failure of a call that says nothing about it: the control plane is not there."""


class CannotReach(Exception):
    """The control plane cannot be reached or has gone; the words say where it was sought, why, and what to do."""
