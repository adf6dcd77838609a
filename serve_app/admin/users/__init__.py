"""What commands do to what is known of a space's users."""
