"""Editing facts that a model knows: single edits by each method, and many edits after one another and at once."""
