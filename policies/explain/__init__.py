"""Why a decision is as it is: terms that add up to each score."""
