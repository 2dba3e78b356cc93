"""How logits drift with batch shape, threads, attention implementation and dtype, and when another token ranks first."""
