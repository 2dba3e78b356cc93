"""Heads of the indirect-object task: an exact patching sweep and its estimate from gradients, compared."""
