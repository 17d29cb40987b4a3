#!/usr/bin/env python3
"""Builds the demo's images as docker archives from Debian's static busybox, without a
container engine: image.py OUTPUT_DIR. Two versions, so that a rollout has somewhere to go."""

import hashlib
import io
import json
import pathlib
import sys
import tarfile

BUSYBOX = "/bin/busybox"
APPLETS = ["sh", "httpd", "wget", "sleep", "cat", "ls", "ps", "timeout", "nc", "nslookup", "ip", "kill", "true", "false", "env",
           "echo", "date", "id", "hostname", "head", "tail", "touch", "rm", "mkdir", "test", "seq", "dd", "mount"]

# httpd runs CGI programs; this one answers every path with the pod's name.
SERVE = """#!/bin/sh
mkdir -p /tmp/www/cgi-bin
cat > /tmp/www/cgi-bin/index.cgi <<'CGI'
#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo "$GREETING $POD_NAME (version {version})"
CGI
chmod +x /tmp/www/cgi-bin/index.cgi
echo "serving version {version} on 8080 as $POD_NAME"
trap 'exit 0' TERM
httpd -f -p 8080 -h /tmp/www &
wait $!
"""


def member(name, data=b"", mode=0o755, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.type, info.linkname = len(data), mode, kind, link
    return info, io.BytesIO(data)


def archive(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for info, data in members:
            tar.addfile(info, data)
    return out.getvalue()


def layer(version):
    busybox = pathlib.Path(BUSYBOX).read_bytes()
    members = [member(d, kind=tarfile.DIRTYPE) for d in ("bin", "etc", "tmp", "proc", "sys", "dev")]
    members.append(member("bin/busybox", busybox))
    members += [member(f"bin/{applet}", kind=tarfile.SYMTYPE, link="busybox") for applet in APPLETS]
    members.append(member("etc/passwd", b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n", 0o644))
    members.append(member("etc/group", b"root:x:0:\nnogroup:x:65534:\n", 0o644))
    members.append(member("serve", SERVE.replace("{version}", version).encode()))
    return archive(members)


def image(reference, version):
    content = layer(version)
    config = json.dumps({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": ["/serve"], "Env": ["PATH=/bin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(content).hexdigest()]},
    }).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": name, "RepoTags": [reference], "Layers": ["layer.tar"]}]).encode()
    return archive([member("layer.tar", content, 0o644), member(name, config, 0o644),
                    member("manifest.json", manifest, 0o644)])


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for version in ("1", "2"):
        path = out / f"demo-web-{version}.tar"
        path.write_bytes(image(f"skiff.local/demo-web:{version}", version))
        print(path)


if __name__ == "__main__":
    main()
