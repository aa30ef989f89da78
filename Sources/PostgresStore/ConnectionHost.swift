import CLibPQ

/// One of the hosts of a connection string.
///
/// libpq takes the first that answers and fits `target_session_attrs`; here the others are tried, too, where that one is a standby or has
/// lost writes. So hosts are taken apart, and libpq is given one at a time.
struct ConnectionHost: Sendable, Hashable {
    /// What overrides the connection string.
    var options: [Option]

    /// A key word of libpq and its value.
    typealias Option = (String, String)

    /// For messages.
    var name: String {
        options.filter { $0.0 != "port" }.map(\.1).joined(separator: " ")
            + (options.first { $0.0 == "port" }.map { ":\($0.1)" } ?? "")
    }

    /// The hosts of a connection string, in its order; one without options where there is one only, or it cannot be read, of which libpq
    /// then tells.
    static func of(_ dsn: String) -> [ConnectionHost] {
        guard let options = PQconninfoParse(dsn, nil) else { return [ConnectionHost(options: [])] }
        defer { PQconninfoFree(options) }
        var values: [String: String] = [:]
        var next = options
        while let keyword = next.pointee.keyword {
            if let value = next.pointee.val { values[String(cString: keyword)] = String(cString: value) }
            next += 1
        }
        return of(host: values["host"], address: values["hostaddr"], port: values["port"])
    }

    /// As libpq documents its lists: a port for each host, or one for all.
    static func of(host: String?, address: String?, port: String?) -> [ConnectionHost] {
        func list(_ text: String?) -> [String] {
            text.map { $0.split(separator: ",", omittingEmptySubsequences: false).map(String.init) } ?? []
        }
        let (hosts, addresses, ports) = (list(host), list(address), list(port))
        let count = max(hosts.count, addresses.count)
        guard count > 1, hosts.isEmpty || hosts.count == count, addresses.isEmpty || addresses.count == count,
            ports.count <= 1 || ports.count == count
        else { return [ConnectionHost(options: [])] }
        return (0..<count).map { index in
            var options: [Option] = []
            if !hosts.isEmpty { options.append(("host", hosts[index])) }
            if !addresses.isEmpty { options.append(("hostaddr", addresses[index])) }
            if ports.count == count { options.append(("port", ports[index])) }
            return ConnectionHost(options: options)
        }
    }

    static func == (left: ConnectionHost, right: ConnectionHost) -> Bool {
        left.options.elementsEqual(right.options) { $0 == $1 }
    }

    func hash(into hasher: inout Hasher) { for option in options { hasher.combine(option.1) } }
}
