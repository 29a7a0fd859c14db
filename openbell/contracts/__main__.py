"""python -m openbell.contracts: writes the schemas anew."""

from openbell.contracts.schema import write

write()
