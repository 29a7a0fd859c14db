"""Figures, each beside a reference that is measured in the same run: trust the ratios."""
