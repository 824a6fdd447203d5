"""The main job in one go: teach, judge before and after, compare, answer from a library, and report it all."""
