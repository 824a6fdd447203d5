"""Words to tokens and back: tokenisers, chat templates (the only place special tokens are spelt), Italian."""
