/// How people reach the volumes that run.
enum AttachHelp {
    /// The text for one state.
    static func text(_ state: ClusterState, isNew: Bool) -> String {
        var lines = ["", "Ashlar runs. Data: \(state.data)"]
        let ports = Set(state.portals.map(\.port)).sorted()
        lines.append("iSCSI portals: " + ports.map { "127.0.0.1:\($0)" }.joined(separator: ", "))
        if let balanced = state.balancedPortal { lines.append("Advertised by all of them: \(balanced)") }
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
        let portal = state.balancedPortal ?? "\(first.address):\(first.port)"
        let url = "iscsi://\(portal)/\(first.iqn)/0"
        lines += [
            "",
            "Attach from Linux (open-iscsi), as root:",
            "  iscsiadm -m discovery -t sendtargets -p \(portal)",
            "  iscsiadm -m node -T \(first.iqn) -p \(portal) --login",
            "Use it from qemu:",
            "  qemu-img info \(url)",
            "  qemu-system-x86_64 -m 1G -drive file=\(url),format=raw,if=virtio",
            "Look at it with libiscsi:",
            "  iscsi-ls -s iscsi://\(portal)",
            "  iscsi-inq \(url)",
            "",
            "Ctrl-C stops all in order; the next start finds everything again.",
        ]
        return lines.joined(separator: "\n")
    }
}
