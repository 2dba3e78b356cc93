"""One technique a module: a function ``verb(model, ...)`` that ends in a frozen result."""
