"""Editing facts: rank-one and low-rank changes of MLP weights, as things that can be saved, undone and measured."""
