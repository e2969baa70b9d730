"""openus_data: fetch, curate, de-identify, shard and audit ultrasound images.

Importing the package loads nothing heavy; each part imports what it owns. Start at `openus_data.build`.
"""

__version__ = "0.1.0"
