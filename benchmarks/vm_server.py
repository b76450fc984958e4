"""What the bare script needs on the network, in a process of its own: files (with ranges, by sendfile), and somebody who
takes the new system's report.

    python -m benchmarks.vm_server FOLDER FILES_PORT REPORTS_PORT CERTIFICATE KEY

Serves FOLDER/files and appends each report to FOLDER/reports.jsonl. Says `ready` on its standard output.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path

from aiohttp import web


async def serve(folder: Path, files_port: int, reports_port: int, certificate: str, key: str) -> None:
    files = web.Application()
    files.router.add_static("/", folder / "files")

    async def report(request: web.Request) -> web.Response:
        body = await request.text()
        with (folder / "reports.jsonl").open("a") as out:
            out.write(body + "\n")
        return web.json_response({"acknowledged": True})

    reports = web.Application()
    reports.router.add_post("/v1/system", report)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    for app, port, tls in ((files, files_port, None), (reports, reports_port, context)):
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    home, first, second, pem, secret = sys.argv[1:]
    asyncio.run(serve(Path(home), int(first), int(second), pem, secret))
