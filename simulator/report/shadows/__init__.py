"""What the shadows of a policy would have earned: estimates by DR, with a verdict each."""
