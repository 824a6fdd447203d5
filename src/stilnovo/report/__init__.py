"""The pages and the terminal tables: the domain's own values in, one self-contained HTML page or one table out.

Nothing here computes a result. No network, and no script is needed to read a page.
"""
