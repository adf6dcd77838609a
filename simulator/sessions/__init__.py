"""Sessions: worlds where a choice changes what comes after it, and policies that plan for it."""
