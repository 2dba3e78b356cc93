"""Average indirect effects of states over facts that a model knows."""
