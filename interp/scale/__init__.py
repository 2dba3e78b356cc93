"""From one prompt to a corpus: activations in files, and work over many prompts."""
