"""Two towers: a user and an item as vectors, each made of what is known of it, in numpy."""
