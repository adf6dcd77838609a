"""The files that training writes and the service loads: source artifacts, trained models."""
