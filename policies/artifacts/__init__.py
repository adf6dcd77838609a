"""What training writes and the service loads: source artifacts and trained models."""
