"""Sources over the items as they are now, whatever an artifact was trained on."""
