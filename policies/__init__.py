"""What a policy is made of: sources, catalogue, features, blending, slates, guardrails, and the spec."""
