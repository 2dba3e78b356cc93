"""Work over many prompts, facts, models or settings, and the engines that run it."""
