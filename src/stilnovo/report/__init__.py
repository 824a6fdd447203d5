"""Reports: results in, one self-contained HTML page or one terminal table out.

Nothing here computes a result. No network, and no script is needed to read a page.
"""
