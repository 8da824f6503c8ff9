"""The sections of the configuration, one module for each subject; their docstrings and keys are the reference."""
