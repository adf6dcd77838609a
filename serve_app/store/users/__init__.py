"""Who the users of a space are: the one store that is made of no log, and its copies."""
