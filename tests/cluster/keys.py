"""Keys: one authority, the certificates that it signed, and a token for each client of the API server."""

import base64
import json
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.layout import API_PORT, API_SERVICE_ADDRESS, CONTEXT, DOMAIN, NODE_ADDRESS, NODE_NAME, Layout

ADMINISTRATOR = "administrator"
CONTROLLERS = "system:kube-controller-manager"
DNS = "dns"
KUBELET = f"system:node:{NODE_NAME}"
PROXY = "system:kube-proxy"
SCHEDULER = "system:kube-scheduler"

# Each user and its group; Kubernetes itself binds roles to the names that begin with "system:".
_USERS: Mapping[str, str] = {
    ADMINISTRATOR: "system:masters",
    CONTROLLERS: "",
    # No role comes with Kubernetes for it, and on a test's node it may see all.
    DNS: "system:masters",
    KUBELET: "system:nodes",
    PROXY: "",
    SCHEDULER: "",
}
_SERVER_NAMES = (
    "DNS:localhost",
    "DNS:kubernetes",
    "DNS:kubernetes.default",
    "DNS:kubernetes.default.svc",
    f"DNS:kubernetes.default.svc.{DOMAIN}",
    "IP:127.0.0.1",
    f"IP:{NODE_ADDRESS}",
    f"IP:{API_SERVICE_ADDRESS}",
)


def make_keys(layout: Layout) -> None:
    """Make all keys and tokens, once: what is in the cluster's data stays valid as long as they do."""
    if layout.keys.exists():
        return
    # In one move, so that a start that was killed leaves no half of them.
    draft = layout.keys.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    _certificate(draft, "ca", "/CN=nextflow-controller-cluster")
    _signed(draft, "server", f"/CN={NODE_NAME}", "serverAuth", f"subjectAltName={','.join(_SERVER_NAMES)}")
    # What the API server shows to the kubelet, which lets its group do everything.
    _signed(draft, "kubelet-client", "/O=system:masters/CN=kube-apiserver", "clientAuth")
    service_accounts = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    _openssl("genpkey", *service_accounts, "-out", str(draft / "service-accounts.key"))
    _openssl("pkey", "-in", str(draft / "service-accounts.key"), "-pubout", "-out", str(draft / "service-accounts.pub"))
    tokens = {user: secrets.token_hex(16) for user in _USERS}
    (draft / "tokens.json").write_text(json.dumps(tokens))
    lines = [f'{tokens[user]},{user},{user},"{group}"\n' for user, group in _USERS.items()]
    (draft / "tokens.csv").write_text("".join(lines))
    draft.rename(layout.keys)


def token(layout: Layout, user: str) -> str:
    """What the user shows to the API server."""
    tokens: Mapping[str, str] = json.loads((layout.keys / "tokens.json").read_text())
    return tokens[user]


def kubeconfig(layout: Layout, user: str) -> Mapping[str, Any]:
    """A kubeconfig with everything inline, so that it can be copied elsewhere."""
    authority = base64.b64encode((layout.keys / "ca.crt").read_bytes()).decode()
    cluster = {"server": f"https://127.0.0.1:{API_PORT}", "certificate-authority-data": authority}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": cluster}],
        "users": [{"name": user, "user": {"token": token(layout, user)}}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": user}}],
        "current-context": CONTEXT,
    }


def _signed(folder: Path, name: str, subject: str, usage: str, *extensions: str) -> None:
    signer = ["-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key")]
    wanted = ["basicConstraints=critical,CA:FALSE", f"extendedKeyUsage={usage}", *extensions]
    _certificate(folder, name, subject, *signer, *(part for extension in wanted for part in ("-addext", extension)))


def _certificate(folder: Path, name: str, subject: str, *options: str) -> None:
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650"]
    files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt")]
    _openssl("req", *kind, "-subj", subject, *files, *options)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], capture_output=True, check=True)
