import ObjectStore
import RPC

extension RPCError {
    /// What a peer is told of an error of the object store: the only place where the one becomes the other.
    init(_ error: ObjectStoreError, answering type: RPCMessageType) {
        let status = Self.status(of: error, answering: type)
        self = status == .mediumError ? .damaged(error.slot, error.message) : RPCError(status, error.message)
    }

    private static func status(of error: ObjectStoreError, answering type: RPCMessageType) -> RPCStatus {
        switch error.code {
        case .noSpace: .noSpace
        case .inputOutput, .rootOutOfService: .inputOutput
        // Readers ask the owner's map again, for the whole command (I7).
        case .notFound: .noSuchObject
        case .exists: .exists
        case .corrupt: .mediumError
        // The one thing that can be wrong with a question for slots is that the object has fewer.
        case .invalid: type == GetSlots.type ? .outOfRange : .invalidMessage
        case .busy, .closed: .busy
        default: .internalError
        }
    }
}
