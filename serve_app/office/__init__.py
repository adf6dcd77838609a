"""The process beside the replicas that answers what takes long, and serves the console's pages."""
