"""Conversation: find passages, answer from them, and verify every quotation against the stored source."""
