"""Model cards: under which terms a model and its training data stand, and the README.md that says so."""
