"""Tasks that ship with the package, as a folder in GTA's own schema."""

from pathlib import Path

RELEASE = Path(__file__).with_name("release")
"""`dataset.json`, `toolmeta.json`, `image/`, and `LICENCES.md`; `read_gta` reads it."""
