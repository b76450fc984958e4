"""A fleet of emulated BMCs: personas of the makes and replayed recordings, each at its own address, with faults by switch.

::

    from metalimmu_emulator.fleet import Fleet, Member

    with Fleet(["dell", "hpe", Member("openbmc", name="gpu-1"), Member("/recordings/lenovo.zip")]) as fleet:
        bmc = fleet[0]                       # or fleet["dell-000001"]; iterates, has len()
        bmc.address                          # redfish+https://127.80.0.1:40123     (tls=False: redfish+http://)
        bmc.url                              # https://127.80.0.1:40123
        bmc.name, bmc.make, bmc.serial       # dell-000001, dell, a serial of its own
        bmc.username, bmc.password           # of an account that may do everything; also fleet.username, fleet.password
        fleet.ca, bmc.fingerprint            # the CA's PEM file, SHA-256 of the certificate (for tls.fingerprint)
        fleet.inventory, fleet.site          # hosts.csv and a read-only site, written at start, ready for metalimmu
        fleet.credentials                    # file:…, a reference for `credentials` and `--credentials`

What it counted (read-only code must leave ``writes`` at 0; a session's own POST and DELETE are not writes)::

        seen = bmc.counters()                # Counters: requests, reads, writes, logins, refused_logins, sessions (open now),
        seen.writes, seen.sessions           # most_sessions, connections, most_in_flight, bytes_sent, first, last (times)
        bmc.written()                        # [("PATCH", "/redfish/v1/…", {...}), …]
        bmc.clear_counters();  fleet.counters()   # the sum over all

Behind its back. With ``logged`` the BMC's own audit or lifecycle log has the entry, by `user`; without, nothing says who::

        bmc.set_bios({"ProcTurbo": "Disabled"}, logged=True, user="jane")
        bmc.stage_bios({"ProcTurbo": "Disabled"})  # pending until the next reset, as a PATCH of the settings would
        bmc.set_firmware("bios", "2.1.0")    # bios | bmc | nic | the id of an item
        bmc.update_bios("1.5")               # a BIOS update: Supermicro's attribute names get new suffixes, registry follows
        bmc.cmos_clear(); bmc.factory_reset()
        bmc.reset()                          # power cycle: what is pending becomes current, jobs complete
        bmc.restart_bmc(seconds=0)           # the BMC itself: sessions are forgotten; away for that long
        bmc.power("Off")                     # Attributes are {} while off on makes that do that (openbmc, supermicro)
        bmc.edit("/redfish/v1/…", {"NTPServers": [...]}, logged=False)     # merge into any resource
        bmc.replace("/redfish/v1/…", {...} | b"any bytes" | None)          # None: 404
        bmc.document("/redfish/v1/…")        # as it would be served, without a login and uncounted
        bmc.bios(), bmc.pending(), bmc.log_entries(), bmc.add_log("text", user="")

Faults, until healed (``bmc.heal()`` all, ``bmc.heal("slow")`` one). Each takes ``path`` (regular expression on the
request's path), ``method``, ``times``, ``after`` (requests that pass first)::

        bmc.fault("slow", delay=2.0)         bmc.fault("silent")           takes the request, never answers
        bmc.fault("reset")                   cut in the middle of the answer; bmc.fault("refuse"): cut before it
        bmc.fault("tls")                     garbage instead of a handshake;  kind="other": a certificate of nobody's
        bmc.fault("expire", after=5)         401 from the 6th request on, until a new login, again and again
        bmc.fault("login", status=401)       no login is good
        bmc.fault("sessions")                session limit reached
        bmc.fault("busy", status=503, retry_after=1)
        bmc.fault("truncated")               half of the JSON;   bmc.fault("drip"): one byte every 50 ms
        bmc.fault("null-members")            a collection whose Members are null
        bmc.fault("dead-links")              half of the members of collections answer 404
        bmc.fault("clock", seconds=-3e8)     its DateTime and Date header are off
        bmc.fault("etag")                    If-Match is never right, ETags differ at each read
        bmc.fault("expand")                  $expand answers with members that are stubs, empty or missing
        bmc.fault("lying-current")           Bios says what was staged, before any reset
        bmc.fault("lying-write")             writes answer 200 and do nothing
        bmc.fault("not-permitted", path=…)   403

``Fleet(..., processes=0)`` (default) serves from one thread of this process; ``processes=2`` from two child processes, with
the same methods. ``latency=0.1`` is put before each answer. `Fleet.attach(folder)` speaks to a fleet that
``metalimmu lab fleet --detach`` started.
"""

from __future__ import annotations

from metalimmu_emulator.fleet.fleet import Bmc, Fleet
from metalimmu_emulator.fleet.spec import MAKES, Counters, Member

__all__ = ["MAKES", "Bmc", "Counters", "Fleet", "Member"]
