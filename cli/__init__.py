"""The ``interp`` command: one small module a command, installed as the package ``interp_cli``."""
