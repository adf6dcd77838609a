"""Sessions: worlds in which a choice changes what comes after it, and policies that plan for that."""
