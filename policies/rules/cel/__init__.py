"""CEL as it is written: an expression's text, its tokens, and the tree that they make."""
