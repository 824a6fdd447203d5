"""What a run will need, from shapes alone: bytes line by line, arithmetic, hours. Nothing here imports torch."""
