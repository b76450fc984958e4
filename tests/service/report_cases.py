"""Reports for tests: a large fleet, an empty one, and one whose machines say hostile things."""

from __future__ import annotations

import random

from metalimmu.service.report.data import (
    Change,
    Coverage,
    Host,
    Line,
    Outlier,
    Pool,
    ReportData,
    ScanFacts,
    Setting,
    Silence,
    names,
)

NOW = 1_795_000_000.0
HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "'};document.title='owned';//",
    "javascript:document.title='owned'",
    "</style><style>*{display:none}</style>",
    "</title><script>document.title='owned'</script>",
    "{{ 7 * 7 }}{% raw %}",
    "<svg onload=document.title='owned'>",
    "\u202egnp.exe",
    "\x1b[31mred\x00",
)


def large() -> ReportData:
    """10,000 hosts."""
    chance = random.Random(1)
    days = tuple(NOW - 86400 * (29 - i) for i in range(30))

    def walk(begin: int, most: int) -> tuple[int, ...]:
        found = [begin]
        while len(found) < 30:
            found.append(max(0, min(most, found[-1] + chance.randint(-most // 12 - 1, most // 11 + 1))))
        return tuple(found)

    pools = ["web-ams", "web-fra", "db", "gpu", "storage", "build", "edge", "spare"]
    settings = ["bios.ProcCStates", "firmware.bios", "bios.SriovGlobalEnable", "bmc.ntp.servers", "firmware.nic Mellanox ConnectX-6 in Slot 3",
                "secure_boot.enabled", "boot.order", "bios.LogicalProc", "hardware.memory.count", "bmc.accounts"]  # fmt: skip
    hosts = [f"r{r:02}-u{u:02}" for r in range(1, 101) for u in range(1, 101)]
    return ReportData(
        site="ams1",
        version="0.1.0",
        generated=NOW,
        hosts=10_000,
        states={"match": 9310, "drift": 548, "unknown": 122, "no-profile": 20},
        scan=ScanFacts(id="s-20261118-05ma6q3c8", trigger="schedule:nightly-drift", started=NOW - 3600, finished=NOW - 1800, hosts=10_000, requests=31_204, new=37, fixed=112),
        times=days,
        by_severity=(Line(name="critical", values=walk(20, 60)), Line(name="warning", values=walk(300, 700)), Line(name="info", values=walk(100, 200))),
        by_pool=tuple(Line(name=p, values=walk(chance.randint(0, 60), 100)) for p in pools),
        by_setting=tuple(Line(name=s, values=walk(chance.randint(0, 60), 100)) for s in settings[:8]),
        findings=1312,
        severities={"critical": 41, "warning": 1100, "info": 171},
        waived=17,
        pools=tuple(Pool(name=p, states={"match": 1150 - i * 60, "drift": 20 + i * 13, "unknown": i * 4}, findings=50 + i * 31) for i, p in enumerate(pools)),
        pools_total=8,
        settings=tuple(
            Setting(name=s, severity=("critical", "warning", "warning", "info")[i % 4], owner="platform" if i % 3 == 0 else "", hosts=500 // (i + 1), changes_total=3 if i == 1 else 1,
                changes=(Change(word="differs", expected="Disabled", actual="Enabled", first_seen=NOW - 86400 * (i + 1), hosts=names(hosts[: 500 // (i + 1)])),
                         *((Change(word="missing", expected="1.8.2", actual="", first_seen=NOW - 9e5, hosts=names(hosts[:2]), waived="until 2027-01-01: waits for a part"),) if i == 1 else ())))
            for i, s in enumerate(settings)
        ),
        settings_total=61,
        drifted=tuple(Host(name=hosts[i * 97], pool=pools[i % 8], findings=60 - i, worst=("critical", "warning", "info")[i % 3], since=NOW - 86400 * (i + 1), settings=tuple(settings[: 4])) for i in range(50)),
        drifted_total=548,
        silent=(
            Silence(reason="BmcUnreachable", example="10.12.0.7: no answer within 10 s", hosts=names(hosts[:102]), longest=41),
            Silence(reason="BmcLoginRefused", example="10.12.0.9 refused the login of root", hosts=names(hosts[200:218]), longest=3),
            Silence(reason="BmcBroken", example="10.12.4.1: truncated JSON", hosts=names(hosts[300:302]), longest=1),
        ),
        outliers=tuple(Outlier(group="Dell Inc. PowerEdge R750", setting=s, usual="Disabled", usual_hosts=4012, value="Enabled", hosts=names(hosts[i : i + 1 + i * 3])) for i, s in enumerate(settings[:6])),
        outliers_total=9,
        coverage=(Coverage(group="dell-r750-web", hosts=4012, controlled=61, settings=412), Coverage(group="supermicro-x12", hosts=3100, controlled=33, settings=287), Coverage(group="no profile", hosts=20, controlled=0, settings=301)),
        coverage_total=3,
    )  # fmt: skip


def empty() -> ReportData:
    return ReportData(site="new", version="0.1.0", generated=NOW)


def hostile() -> ReportData:
    """Each text that can come from a BMC, a document or a person, in each place, as something that wants to act."""
    hosts = names(list(HOSTILE))
    lines = tuple(Line(name=t, values=(1, 2)) for t in HOSTILE)
    return ReportData(
        site=HOSTILE[0],
        version=HOSTILE[1],
        generated=NOW,
        scope=HOSTILE[2],
        hosts=10,
        states={"match": 1, "drift": 9},
        scan=ScanFacts(id=HOSTILE[0], trigger=HOSTILE[1], started=NOW, finished=None, hosts=1),
        times=(NOW - 86400, NOW),
        by_severity=lines,
        by_pool=lines,
        by_setting=lines,
        severities=dict.fromkeys(HOSTILE, 1),
        pools=tuple(Pool(name=t, states={"drift": 1}) for t in HOSTILE),
        settings=tuple(
            Setting(
                name=t,
                severity=t,
                owner=t,
                hosts=1,
                changes=(Change(word=t, expected=t, actual=t, first_seen=NOW, hosts=hosts, waived=t),),
            )
            for t in HOSTILE
        ),
        drifted=tuple(Host(name=t, pool=t, findings=1, worst=t, since=NOW, settings=(t,)) for t in HOSTILE),
        silent=tuple(Silence(reason=t, example=t, hosts=hosts) for t in HOSTILE),
        outliers=tuple(Outlier(group=t, setting=t, usual=t, usual_hosts=9, value=t, hosts=hosts) for t in HOSTILE),
        coverage=tuple(Coverage(group=t, hosts=1, controlled=1, settings=2) for t in HOSTILE),
    )
