"""Openbell hosts Python trading strategies."""

__version__ = "0.1.0"
