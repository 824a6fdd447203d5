"""Files of every kind into rows: the one reader that all commands share."""
