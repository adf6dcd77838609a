"""What policies that choose for nobody would have earned."""
