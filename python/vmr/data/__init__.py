"""Annotations and feature packs as they are on disk, in any of the field's formats."""
