package import AshlarCore
package import ISCSI
package import NIOCore

/// What an initiator of the tests wants of a session.
package struct ISCSIInitiatorOptions: Sendable {
    package var initiatorName = "iqn.2026-01.test:initiator"
    package var targetName: String? = "iqn.2026-01.test:volume"
    package var sessionType = SessionType.normal
    package var isid: UInt64 = 0x4000_0137_0001
    package var headerDigest = ["None"]
    package var dataDigest = ["None"]
    package var initialR2T = true
    package var immediateData = true
    package var maxRecvDataSegmentLength: UInt32 = 8_192
    package var maxBurstLength: UInt32 = 262_144
    package var firstBurstLength: UInt32 = 65_536
    package var maxOutstandingR2T: UInt16 = 1
    package var errorRecoveryLevel: UInt8 = 0
    /// Offered where set.
    package var maxConnections: UInt16?
    /// Offered where set: DefaultTime2Wait and DefaultTime2Retain, in seconds.
    package var times: (wait: UInt16, retain: UInt16)?
    /// Proves the initiator, where set.
    package var credential: CHAPCredential?
    /// Asks the target to prove itself with this, where set.
    package var mutual: CHAPCredential?
    package var chapAlgorithms = "7,6,5"
    package var hash: @Sendable (CHAPAlgorithm, [UInt8]) -> [UInt8] = ISCSITestHash.digest
    package var answersPings = true
    package var answersReadyToTransfer = true

    package init() {}
}

/// A hash that every test may use: not secure, but it depends on every byte, on their order and on the algorithm.
package enum ISCSITestHash {
    @Sendable
    package static func digest(_ algorithm: CHAPAlgorithm, _ bytes: [UInt8]) -> [UInt8] {
        var state = 0xCBF2_9CE4_8422_2325 ^ UInt64(algorithm.rawValue)
        for byte in bytes { state = (state ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return (0..<algorithm.digestLength).map { index in
            state = (state ^ UInt64(index)) &* 0x100_0000_01B3
            return UInt8(truncatingIfNeeded: state >> 24)
        }
    }
}

/// What an initiator of the tests has seen.
package enum ISCSIInitiatorEvent: Sendable {
    case loggedIn([TextKey])
    case loginFailed(UInt16, [TextKey])
    case completed(ISCSIInitiatorResult)
    case readyToTransfer(ReadyToTransferPDU)
    case nopIn(NopInPDU, ByteBuffer)
    case taskManagement(TaskManagementResponsePDU)
    case text(TextResponsePDU, ByteBuffer)
    case logout(LogoutResponsePDU)
    case reject(RejectPDU, ByteBuffer)
    case async(AsyncMessagePDU, ByteBuffer)
    /// The target broke the protocol.
    case violation(String)
}

/// How a command ended, as the initiator sees it.
package struct ISCSIInitiatorResult: Sendable {
    package var tag: UInt32
    package var response: UInt8 = 0
    package var status: UInt8
    package var residual: Residual
    package var sense = ByteBuffer()
    package var data = ByteBuffer()
    /// The Data-In PDUs, in order.
    package var dataIn: [DataInPDU] = []
    /// Their lengths.
    package var dataLengths: [Int] = []
    /// Whether the status came with the last Data-In.
    package var isCollapsed = false
}
