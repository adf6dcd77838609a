"""What is said of a policy by folding its log again."""
