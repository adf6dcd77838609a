"""The HTTP API: routes, requests, answers, errors, API keys."""
