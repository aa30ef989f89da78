/// A decoder that arbitrary bytes are fed into. The raw value names it on the command line and its folder in the corpus.
package enum FuzzTarget: String, Sendable, CaseIterable {
    /// iSCSI PDUs in a stream: ``fuzzISCSIFrame(_:)``.
    case iscsiFrame = "iscsi-frame"
    /// A whole iSCSI connection: ``fuzzISCSIConnection(_:)``.
    case iscsiConnection = "iscsi-connection"
    /// iSCSI text keys and values: ``fuzzTextKeys(_:)``.
    case textKeys = "text-keys"
    /// What a proxy sends before a connection: ``fuzzProxyHeader(_:)``.
    case proxyHeader = "proxy-header"
    /// Messages of an iSNS server: ``fuzzISNS(_:)``.
    case isns
    /// SCSI commands: ``fuzzCDB(_:)``.
    case cdb = "cdb"
    /// RPC frames and the connection: ``fuzzRPCFrame(_:)``.
    case rpcFrame = "rpc-frame"
    /// Bodies of RPC messages: ``fuzzRPCMessages(_:)``.
    case rpcMessages = "rpc-messages"
    /// Block objects: ``fuzzObjectHeader(_:)``.
    case objectHeader = "object-header"
    /// Fails for some inputs, so that what runs the others can be seen to find a failure.
    case canary = "canary"

    /// Feeds `input` in.
    ///
    /// - Throws: ``FuzzFailure`` where a rule is broken; a trap is a failure too.
    package func run(_ input: [UInt8]) throws(FuzzFailure) {
        switch self {
        case .iscsiFrame: try fuzzISCSIFrame(input)
        case .iscsiConnection: try fuzzISCSIConnection(input)
        case .textKeys: try fuzzTextKeys(input)
        case .proxyHeader: try fuzzProxyHeader(input)
        case .isns: try fuzzISNS(input)
        case .cdb: try fuzzCDB(input)
        case .rpcFrame: try fuzzRPCFrame(input)
        case .rpcMessages: try fuzzRPCMessages(input)
        case .objectHeader: try fuzzObjectHeader(input)
        case .canary: try fuzzCanary(input)
        }
    }
}

/// A rule that a decoder broke.
package struct FuzzFailure: Error, CustomStringConvertible {
    /// Which one.
    package let description: String

    /// A broken rule.
    package init(_ description: String) {
        self.description = description
    }
}

/// Throws where a rule does not hold.
func require(_ holds: Bool, _ rule: @autoclosure () -> String) throws(FuzzFailure) {
    guard holds else { throw FuzzFailure(rule()) }
}

private func fuzzCanary(_ input: [UInt8]) throws(FuzzFailure) {
    try require(!input.starts(with: [0x41, 0x53, 0x48]), "the canary was found")
}
