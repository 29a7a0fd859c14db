"""Hours of a busy host in minutes: what grows, and what is left behind."""
