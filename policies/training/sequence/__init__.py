"""Models of what a user does next, given the order of what came before."""
