"""Two hundred facts traced on every engine, with workers lost and interrupts on the way: the same rows, and none twice."""
