"""Tokenizers, chat templates (the only place where special tokens are spelt), and processing of Italian."""
