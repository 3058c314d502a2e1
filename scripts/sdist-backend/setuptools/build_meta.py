"""A build backend that builds nothing.

pip cannot fetch a source archive without asking its build backend for metadata, which for setuptools means running
the archive's own setup.py, with its build dependencies. We want only the files inside, so setup puts this folder first
on the path and pip asks us: the answer is the PKG-INFO that the archive already carries. No line of the archive runs.
"""

import email
import pathlib
import re


def get_requires_for_build_wheel(config_settings=None):
    """Nothing is built, so nothing is needed."""
    return []


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    """Copies PKG-INFO (pip's working folder is the unpacked archive) into a .dist-info folder; returns its name."""
    raw = pathlib.Path("PKG-INFO").read_bytes()
    fields = email.message_from_bytes(raw)
    name = re.sub(r"[-_.]+", "_", fields["Name"])
    folder = pathlib.Path(metadata_directory) / f"{name}-{fields['Version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_bytes(raw)
    return folder.name


class __legacy__:  # noqa: N801 - pip asks for this attribute when the archive has no pyproject.toml
    get_requires_for_build_wheel = staticmethod(get_requires_for_build_wheel)
    prepare_metadata_for_build_wheel = staticmethod(prepare_metadata_for_build_wheel)
