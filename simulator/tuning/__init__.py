"""The search for the hyperparameters of sources, by what users did later."""
