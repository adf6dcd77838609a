"""The service: Ray Serve deployments, HTTP, Redis, the learner, the command line."""
