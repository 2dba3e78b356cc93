"""Induction heads form in a two-layer attention-only transformer and cannot in a one-layer one."""
