"""The programs of the cluster: their command lines and configuration files."""

from pathlib import Path
from typing import Any

import yaml

from dev import files, probes
from dev.kubernetes import pki
from dev.kubernetes.pki import Pki
from dev.probes import Probe
from dev.settings import Settings
from dev.supervision import Program

PAUSE_IMAGE = "localhost/budeval-pause:0.1.0"


class Node:
    """One machine's Kubernetes: what runs, with which files, and how to tell that it is ready."""

    def __init__(self, settings: Settings, binaries: Path) -> None:
        self._settings = settings
        self._binaries = binaries
        self.pki = Pki(settings.kubernetes / "pki")
        self.server = f"https://127.0.0.1:{settings.ports.apiserver}"

    def write_files(self) -> bool:
        """Write keys, kubeconfigs and configuration; return whether the keys are new."""
        renewed = pki.ensure_pki(self.pki)
        folder = self._settings.kubernetes
        folder.chmod(0o700)
        for identity in (pki.ADMIN, pki.CONTROLLER_MANAGER, pki.SCHEDULER, pki.KUBELET):
            text = pki.certificate_kubeconfig(self.pki, identity, self.server)
            files.write(folder / f"{identity.name}.kubeconfig", text, files.SECRET_MODE)
        files.write(folder / "kubelet.yaml", yaml.safe_dump(self._kubelet_configuration(), sort_keys=False))
        files.write(folder / "containerd.toml", self._containerd_configuration())
        files.write(
            folder / "cni" / "loopback.conf", '{"cniVersion": "0.3.1", "name": "loopback", "type": "loopback"}\n'
        )
        self._settings.data.mkdir(parents=True, exist_ok=True)
        # Written to by pods as uid 65532, read by the service as whoever runs it.
        self._settings.data.chmod(0o777)
        return renewed

    def etcd(self) -> Program:
        ports = self._settings.ports
        client, peer = f"https://127.0.0.1:{ports.etcd_client}", f"http://127.0.0.1:{ports.etcd_peer}"
        arguments = {
            "name": "local",
            "data-dir": self._settings.state / "etcd",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"local={peer}",
            "cert-file": self.pki.certificate(pki.ETCD),
            "key-file": self.pki.key(pki.ETCD),
            "client-cert-auth": "true",
            "trusted-ca-file": self.pki.authority,
            "log-level": "warn",
            "logger": "zap",
        }
        return Program("etcd", _command("etcd", arguments))

    def apiserver(self) -> Program:
        keys, ports = self.pki, self._settings.ports
        arguments = {
            "bind-address": "127.0.0.1",
            "secure-port": ports.apiserver,
            "advertise-address": "127.0.0.1",
            # The reconciler refuses a loopback address, and nothing here looks the endpoint up.
            "endpoint-reconciler-type": "none",
            "service-cluster-ip-range": "10.96.0.0/24",
            "etcd-servers": f"https://127.0.0.1:{ports.etcd_client}",
            "etcd-cafile": keys.authority,
            "etcd-certfile": keys.certificate(pki.ETCD),
            "etcd-keyfile": keys.key(pki.ETCD),
            "tls-cert-file": keys.certificate(pki.APISERVER),
            "tls-private-key-file": keys.key(pki.APISERVER),
            "client-ca-file": keys.authority,
            "anonymous-auth": "false",
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": keys.service_account_key,
            "service-account-signing-key-file": keys.service_account_key,
            "kubelet-certificate-authority": keys.authority,
            "kubelet-client-certificate": keys.certificate(pki.KUBELET_CLIENT),
            "kubelet-client-key": keys.key(pki.KUBELET_CLIENT),
            # The node has no address but its name; without this `kubectl logs` finds none.
            "kubelet-preferred-address-types": "Hostname",
            "profiling": "false",
        }
        return Program("kube-apiserver", _command(self._binaries / "kube-apiserver", arguments), stop_seconds=15)

    def controller_manager(self) -> Program:
        kubeconfig = self._settings.kubernetes / "controller-manager.kubeconfig"
        arguments = {
            "kubeconfig": kubeconfig,
            "authentication-kubeconfig": kubeconfig,
            "authorization-kubeconfig": kubeconfig,
            "bind-address": "127.0.0.1",
            "secure-port": self._settings.ports.controller_manager,
            "leader-elect": "false",
            "use-service-account-credentials": "true",
            "service-account-private-key-file": self.pki.service_account_key,
            "root-ca-file": self.pki.authority,
            # With the default of 20 calls per second a new Job waits for minutes behind thousands of others.
            "kube-api-qps": 1000,
            "kube-api-burst": 2000,
            "concurrent-job-syncs": 20,
            # Else a claim may wait 15 s for a volume that is there.
            "pvclaimbinder-sync-period": "1s",
            "profiling": "false",
        }
        return Program("kube-controller-manager", _command(self._binaries / "kube-controller-manager", arguments))

    def scheduler(self) -> Program:
        kubeconfig = self._settings.kubernetes / "scheduler.kubeconfig"
        arguments = {
            "kubeconfig": kubeconfig,
            "authentication-kubeconfig": kubeconfig,
            "authorization-kubeconfig": kubeconfig,
            "bind-address": "127.0.0.1",
            "secure-port": self._settings.ports.kube_scheduler,
            "leader-elect": "false",
            "kube-api-qps": 1000,
            "kube-api-burst": 2000,
            "profiling": "false",
        }
        return Program("kube-scheduler", _command(self._binaries / "kube-scheduler", arguments))

    def containerd(self) -> Program:
        return Program("containerd", ["containerd", "--config", self._settings.kubernetes / "containerd.toml"])

    def kubelet(self) -> Program:
        folder = self._settings.kubernetes
        arguments = {
            "config": folder / "kubelet.yaml",
            "kubeconfig": folder / "kubelet.kubeconfig",
            "hostname-override": pki.NODE_NAME,
            "root-dir": self._settings.state / "kubelet",
            "cert-dir": self._settings.state / "kubelet" / "pki",
        }
        return Program("kubelet", _command(self._binaries / "kubelet", arguments))

    def etcd_ready(self) -> Probe:
        return probes.http_ok(self._settings.ports.etcd_client, "/health", self._client())

    def apiserver_ready(self) -> Probe:
        return probes.http_ok(self._settings.ports.apiserver, "/readyz", self._client())

    def controller_manager_ready(self) -> Probe:
        return probes.http_ok(self._settings.ports.controller_manager, "/healthz", probes.unverified)

    def scheduler_ready(self) -> Probe:
        return probes.http_ok(self._settings.ports.kube_scheduler, "/healthz", probes.unverified)

    def containerd_ready(self) -> Probe:
        return probes.unix(self._settings.containerd_socket)

    def kubelet_ready(self) -> Probe:
        return probes.http_ok(self._settings.ports.kubelet_health, "/healthz")

    def _client(self) -> Any:
        return probes.verified(self.pki.authority, self.pki.certificate(pki.ADMIN), self.pki.key(pki.ADMIN))

    def _kubelet_configuration(self) -> dict[str, object]:
        ports = self._settings.ports
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "127.0.0.1",
            "port": ports.kubelet,
            "healthzBindAddress": "127.0.0.1",
            "healthzPort": ports.kubelet_health,
            "containerRuntimeEndpoint": f"unix://{self._settings.containerd_socket}",
            "podLogsDir": str(self._settings.logs / "pods"),
            "tlsCertFile": str(self.pki.certificate(pki.KUBELET)),
            "tlsPrivateKeyFile": str(self.pki.key(pki.KUBELET)),
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(self.pki.authority)},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            # Pods of this node live below a cgroup of their own, which `down` can empty and remove.
            "cgroupRoot": self._settings.cgroup,
            "failCgroupV1": False,
            "failSwapOn": False,
            "enforceNodeAllocatable": [],
            # The disk is the developer's: a full one is no reason to throw images or pods away.
            "evictionHard": {},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "localStorageCapacityIsolation": False,
            # No chains in the host's packet filter: pods use the host's network.
            "makeIPTablesUtilChains": False,
            "resolvConf": "/etc/resolv.conf",
            "kubeAPIQPS": 200,
            "kubeAPIBurst": 400,
        }

    def _containerd_configuration(self) -> str:
        state = self._settings.state
        return f'''version = 2
root = "{state}/containerd/root"
state = "{state}/containerd/state"
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "{self._settings.containerd_socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
disable_apparmor = true
# Inside a container or a small virtual machine even root may not lower the score.
restrict_oom_score_adj = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{self._settings.kubernetes}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "{state}/containerd/runc"
'''


def _command(program: str | Path, arguments: dict[str, Any]) -> list[str | Path]:
    return [program, *(f"--{name}={value}" for name, value in arguments.items())]
