"""A lab's switches: what their virtual machines need beyond a server's, and the programs that run inside them.

`files/` has ONIE and a small NOS, written from ONIE's and SONiC's documents: shell for busybox. The images folder's
`lab_switch.build` makes disks and installers of them.
"""

from __future__ import annotations

from pathlib import Path

FILES = Path(__file__).parent / "files"
