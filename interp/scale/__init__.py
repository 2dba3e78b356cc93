"""From one prompt to a corpus: activations in files, one analyzer over many items, and the engines that run it."""
