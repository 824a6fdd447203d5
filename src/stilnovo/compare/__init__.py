"""Base and tuned model side by side on the same prompts and seeds."""
