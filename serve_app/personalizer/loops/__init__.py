"""What Personalizer calls a loop beside its events: its configuration, policy, model and logs."""
