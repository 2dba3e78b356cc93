"""Tensors in, tensors out: the arithmetic of every technique. Knows no model, device, file or global."""
