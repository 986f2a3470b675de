"""Methods compared on one task: the grid of methods and seeds, and what it says."""
