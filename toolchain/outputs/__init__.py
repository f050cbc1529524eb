"""Writing what a user asked for: nothing that exists is lost, nothing is ever half there.

Everything that vitc writes for a user goes through here. A regular file or a folder is claimed
before the work (so a second run to the same place fails at once), made under a hidden name beside
its place, and gets its name when it is whole. A device, a pipe, standard output by name or
``>(command)`` is written through, and so is a symbolic link: what it finally names is replaced.
"""

from __future__ import annotations

from vitc.outputs.file import FileOutput, check_file, claim_file, replace_file, write_file
from vitc.outputs.folder import FolderOutput, check_folder, claim_folder, prepare_folder
from vitc.outputs.place import explained

__all__ = [
    "FileOutput",
    "FolderOutput",
    "check_file",
    "check_folder",
    "claim_file",
    "claim_folder",
    "explained",
    "prepare_folder",
    "replace_file",
    "write_file",
]
