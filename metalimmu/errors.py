"""Every error that metalimmu raises on purpose.

::

    MetalimmuError               has .hint: what the operator does next; .code: the class name, for machines
    ├── UsageError               exit status 2
    ├── SiteError                the site's documents; .problems lists all of them
    ├── NotFound                 an unknown host, image, role, run
    ├── SecretError              a credential reference that cannot be read
    ├── TemplateError            run-time config that does not render
    ├── BmcError                 .retry: may the same request succeed later?
    │   ├── BmcUnreachable         no TCP, no answer in time, connection reset        (retry)
    │   │   └── NosAbsent            a switch answers, and it is ONIE                    (retry)
    │   ├── BmcBusy                429, 500, 502, 503, 504                             (retry)
    │   ├── BmcCertificateError    TLS: wrong CA, wrong name, wrong fingerprint
    │   ├── BmcLoginRefused        401, also after one fresh session
    │   │   └── BmcLoginNotTried     nothing was sent: it was refused before, or there is nothing to log in with
    │   │       └── ScanStopped        too many logins of this scan were refused
    │   ├── BmcNotPermitted        403
    │   ├── BmcReadOnly            the site's mode forbids the write; nothing was sent
    │   ├── BmcUnsupported         the BMC has no such thing
    │   ├── HostKeyChanged         SSH: another host key than the one that was pinned or seen before
    │   ├── BmcBroken              an answer that cannot be read: garbage, truncated, of the wrong type
    │   └── BmcRefused             any other 4xx: it understood and said no
    ├── ImageError
    │   ├── ImageExists            other content under an existing name@version
    │   ├── ImageRevoked
    │   ├── ImageInUse
    │   └── ImageCorrupt
    ├── ToolError                a program we run is missing or failed; .output has its last lines
    ├── AgentError               raised on the machine, carried to the controller by code
    │   ├── IdentityMismatch       this is not the machine that the deployment is for
    │   ├── DiskSelectionError     none or several disks match; .disks lists what was seen
    │   ├── DiskUnsuitable         too small, other sector size
    │   ├── DiskKept               a data disk that nothing may write
    │   ├── EraseFailed            a disk that cannot be erased as asked, or still holds what it held
    │   ├── SalvageFailed          files that must be saved and could not be
    │   ├── BurnInFailed           the machine is too slow, or makes mistakes
    │   ├── ForeignSignature       RAID metadata, old ESP, cidata or our own UUIDs elsewhere
    │   ├── ChunkCorrupt           a chunk does not have its SHA-256
    │   ├── ReadBackDiffers
    │   ├── FetchFailed
    │   └── AgentRefused           the controller told this agent to stop
    ├── GuardRefused             nothing was done
    │   ├── HostsRefused           some of many hosts; .problems has a line for each
    │   ├── LeaseHeld              another run works on this host
    │   ├── LeaseLost              our fencing token is no longer the newest
    │   ├── HostProtected
    │   └── ReadOnlyMode
    ├── PlanError                a saved plan that cannot be used: not whole, changed, of another site, expired
    │   ├── PlanDiffers            hosts or documents are not as they were planned; .problems has every difference
    │   └── NotApproved            signatures are missing, or do not count; .problems says which and why
    ├── StepFailed               a step ended without its effect
    │   ├── StepTimeout
    │   ├── BootLoop               the machine asks the network what to boot again and again
    │   ├── HookFailed             a site's hook said no, or could not be asked
    │   └── Unhealthy              proven, and a health check did not become or stay good
    ├── ListenError              an address or port that we cannot listen on
    ├── AlertError               an alert that a receiver did not take                 (retried from the outbox)
    ├── BackupError              a backup that cannot be made, read, or be restored here
    ├── StoreError               locked, full, or newer than this program
    └── LabError

Only the standard library: the agent carries this file into the ramdisk.
"""

from __future__ import annotations

from typing import ClassVar


class MetalimmuError(Exception):
    """Base of the tree. `hint` tells the operator what to do next."""

    exit_status: ClassVar[int] = 1
    default_hint: ClassVar[str] = "run again with --verbose and read the log"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint

    @property
    def code(self) -> str:
        return type(self).__name__


class UsageError(MetalimmuError):
    exit_status = 2
    default_hint = "see --help"


class SiteError(MetalimmuError):
    """The site's documents are wrong; `problems` has one line each, with file and line."""

    exit_status = 2
    default_hint = "mend the documents, then `metalimmu check`"

    def __init__(self, message: str, *, problems: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class NotFound(MetalimmuError):
    exit_status = 2
    default_hint = "look at the list: `metalimmu host list`, `image list` or `run list`"


class SecretError(MetalimmuError):
    default_hint = "check the credentials reference and what it points to"


class TemplateError(MetalimmuError):
    default_hint = "define the variable in the host, role or site, then `metalimmu check`"


class BmcError(MetalimmuError):
    retry: ClassVar[bool] = False
    default_hint = "look at the BMC's own log, then try `metalimmu host inspect HOST`"


class BmcUnreachable(BmcError):
    retry = True
    default_hint = "check the address, cabling, VLAN and proxy of the BMC; `metalimmu power status HOST` tries again"


class NosAbsent(BmcUnreachable):
    default_hint = "the switch is in ONIE: `metalimmu reimage` installs it"


class BmcBusy(BmcError):
    retry = True
    default_hint = "the BMC answers with errors; wait a minute, or reset the BMC itself"


class BmcCertificateError(BmcError):
    default_hint = "set tls.ca or tls.fingerprint of the host to the certificate that the BMC really has"


class BmcLoginRefused(BmcError):
    default_hint = (
        "correct the credentials; these are not tried again, so that no account is locked. Is the account good now? "
        "`power status HOST`, `scan --inventory` and `discover` try once more with --retry-login"
    )


class BmcLoginNotTried(BmcLoginRefused):
    """Does not count where refused logins are counted: the BMC was not asked."""


class ScanStopped(BmcLoginNotTried):
    default_hint = "correct the credentials, then scan again; no host is asked twice with the same ones"


class BmcNotPermitted(BmcError):
    default_hint = "give the account the role that this needs (Operator, or ConfigureComponents)"


class BmcReadOnly(BmcError):
    default_hint = "set `mode: read-write` in site.yaml or the pool"


class BmcUnsupported(BmcError):
    default_hint = "use another boot method for this host, or check the BMC's licence"


class HostKeyChanged(BmcError):
    default_hint = "find out why it changed (`ssh-keyscan` shows the one it has now): `metalimmu switch key HOST --forget` takes the next one seen"


class BmcBroken(BmcError):
    default_hint = "look at the answer with `metalimmu -vv host inspect HOST`; update or reset the BMC"


class BmcRefused(BmcError):
    pass


class ImageError(MetalimmuError):
    default_hint = "see `metalimmu image list`"


class ImageExists(ImageError):
    default_hint = "an image never changes: add it under a new version"


class ImageRevoked(ImageError):
    default_hint = "choose another version; `metalimmu image show NAME@VERSION` says why it was revoked"


class ImageInUse(ImageError):
    default_hint = "reimage or release the hosts first"


class ImageCorrupt(ImageError):
    default_hint = "add the image again from its file: good chunks are kept, bad ones replaced"


class ToolError(MetalimmuError):
    """A program we run is missing or failed."""

    default_hint = "install the Debian package that has the program"

    def __init__(self, message: str, *, hint: str = "", output: str = "") -> None:
        super().__init__(message, hint=hint)
        self.output = output


class AgentError(MetalimmuError):
    """Raised on the machine being written; travels to the controller as code, message and hint."""

    default_hint = "read the machine's serial console"


class IdentityMismatch(AgentError):
    default_hint = "correct serial, NICs or BMC address of the host document: this BMC belongs to another machine"


class DiskSelectionError(AgentError):
    default_hint = "make root_disk name exactly one disk (serial or wwn are best)"


class DiskUnsuitable(AgentError):
    default_hint = "choose another disk, or an image that fits"


class DiskKept(AgentError):
    default_hint = "the role's or host's `keep:` names this disk: take it out there, or choose other hints"


class EraseFailed(AgentError):
    default_hint = "choose another `how:` in the role's `erase:`, or replace the disk"


class SalvageFailed(AgentError):
    default_hint = "mend it, or set `required: false` in the role's `salvage:` to do without the files"


class BurnInFailed(AgentError):
    default_hint = "look at the machine; its disks are as they were. The thresholds are in the pool's `burn_in:`"


class ForeignSignature(AgentError):
    default_hint = "wipe the named disk, or set `wipe_signatures: true` in the role"


class ChunkCorrupt(AgentError):
    default_hint = "run `metalimmu image verify` on the controller"


class ReadBackDiffers(AgentError):
    default_hint = "suspect the disk or its controller: look at SMART data and replace it"


class FetchFailed(AgentError):
    default_hint = "check the machine's network and `urls.machines` of the site"


class AgentRefused(AgentError):
    default_hint = "see `metalimmu run show` for what the controller knows"


class GuardRefused(MetalimmuError):
    default_hint = "nothing was done"


class HostsRefused(GuardRefused):
    """Of many hosts some are refused; `problems` has a line for each."""

    default_hint = "--skip-refused goes on with the others"

    def __init__(self, message: str, *, problems: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class LeaseHeld(GuardRefused):
    default_hint = "wait for the other run, or `metalimmu run cancel` it"


class LeaseLost(GuardRefused):
    default_hint = "another worker has taken over this run; watch it with `metalimmu run watch`"


class HostProtected(GuardRefused):
    default_hint = "if you mean it: --allow-protected --reason TEXT"


class ReadOnlyMode(GuardRefused):
    default_hint = "set `mode: read-write` in site.yaml or in the pool"


class PlanError(MetalimmuError):
    """`problems` has one line for each thing that is wrong, if there are several."""

    default_hint = "make a new plan: `metalimmu plan … --out FILE`"

    def __init__(self, message: str, *, problems: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class PlanDiffers(PlanError):
    default_hint = "look at what has changed, then make a new plan: `metalimmu plan … --out FILE`"


class NotApproved(PlanError):
    default_hint = "`metalimmu approve FILE` signs it; `allowed_signers` of the site says whose signatures count"


class StepFailed(MetalimmuError):
    default_hint = "see the evidence in `metalimmu run show`"


class StepTimeout(StepFailed):
    default_hint = "look at the machine's console; raise the limit in site.yaml if the machine is only slow"


class BootLoop(StepFailed):
    default_hint = "look at its console: the ramdisk or its kernel does not come up; or it boots the network before its disk, for ever"


class HookFailed(StepFailed):
    default_hint = "read its output in `metalimmu run show -o json`, mend the hook, and start again"


class Unhealthy(StepFailed):
    default_hint = "look at the service on the host; then `metalimmu prove HOST`, `rollback HOST`, or a reimage"


class ListenError(MetalimmuError):
    default_hint = "set `listen:` in site.yaml, or stop the program that has the port: `ss -ltnp` names it"


class AlertError(MetalimmuError):
    default_hint = "check the receiver in `alerts:` of site.yaml, then `metalimmu alert test NAME`"


class BackupError(MetalimmuError):
    default_hint = "use another backup; nothing was changed"


class StoreError(MetalimmuError):
    default_hint = "check the state directory's disk space and permissions"


class LabError(MetalimmuError):
    default_hint = "`metalimmu lab status` and the logs in the lab's folder"


def by_code(code: str) -> type[MetalimmuError]:
    """The class of that name, or MetalimmuError: codes come over the wire from agents of other versions."""
    found = globals().get(code)
    return found if isinstance(found, type) and issubclass(found, MetalimmuError) else MetalimmuError
