/// How people reach the volumes that run.
enum AttachHelp {
    /// The text for one state.
    static func text(_ state: ClusterState, isNew: Bool) -> String {
        var lines = ["", "Ashlar runs. Data: \(state.data)"]
        let ports = Set(state.portals.map(\.port)).sorted()
        lines.append("iSCSI portals: " + ports.map { "127.0.0.1:\($0)" }.joined(separator: ", "))
        lines.append("API: \(state.api) (token in \(state.token))")
        lines.append("PostgreSQL: psql \"\(state.postgres)\"")
        guard let first = state.portals.first else {
            lines.append("There is no volume yet: ashlar volume create NAME SIZE")
            return lines.joined(separator: "\n")
        }
        lines.append("")
        lines.append("Volumes:")
        var seen = Set<String>()
        for portal in state.portals where seen.insert(portal.volume).inserted {
            lines.append("  \(portal.volume)  \(portal.iqn)")
        }
        let url = "iscsi://\(first.address):\(first.port)/\(first.iqn)/0"
        lines += [
            "",
            "Attach from Linux (open-iscsi), as root:",
            "  iscsiadm -m discovery -t sendtargets -p \(first.address):\(first.port)",
            "  iscsiadm -m node -T \(first.iqn) -p \(first.address):\(first.port) --login",
            "Use it from qemu:",
            "  qemu-img info \(url)",
            "  qemu-system-x86_64 -m 1G -drive file=\(url),format=raw,if=virtio",
            "Look at it with libiscsi:",
            "  iscsi-ls -s iscsi://\(first.address):\(first.port)",
            "  iscsi-inq \(url)",
            "",
            "Ctrl-C stops all in order; the next start finds everything again.",
        ]
        return lines.joined(separator: "\n")
    }
}
