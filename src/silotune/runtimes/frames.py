"""The kinds of messages: the first byte of what a courier carries."""

TRAIN, SCORE = b"T", b"S"
"""Orders: train and give back an update; score at home."""

RESULT, WHOLE = b"R", b"W"
"""Answers: an update; the word that what the order leans on is not here, so send all of it."""
