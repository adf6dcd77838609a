"""Reports of replicas, and what they are asked."""
