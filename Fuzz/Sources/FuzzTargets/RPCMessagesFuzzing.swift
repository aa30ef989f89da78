import AshlarCore
import NIOCore
import RPC

// Input: one byte, the place in `messageTypes` (hello, its answer, goaway and error follow them; modulo the number of
// all), then the body.

/// The body of any message: what is decoded is encoded to the bytes that were read, and its payload is left.
func fuzzRPCMessages(_ bytes: [UInt8]) throws(FuzzFailure) {
    var input = FuzzInput(bytes)
    let index = Int(input.byte()) % (messageTypes.count + 4)
    let body = ByteBuffer(bytes: input.rest())
    switch index - messageTypes.count {
    case 0:
        try check(body, { buffer throws(RPCDecodingError) in try RPCHello(decoding: &buffer) }) { $0.encode(into: &$1) }
    case 1:
        try check(body, { buffer throws(RPCDecodingError) in try RPCHelloAnswer(decoding: &buffer) }) {
            $0.encode(into: &$1)
        }
    case 2:
        try check(body, { buffer throws(RPCDecodingError) in try RPCGoaway(decoding: &buffer) }) {
            $0.encode(into: &$1)
        }
    case 3: try checkError(body)
    default: try check(messageTypes[index], body)
    }
}

/// Files of the corpus name them by their place: with a new one, `make-seeds.py` changes too, and is to be run again.
private let messageTypes: [any RPCMessage.Type] = [
    LookUpVolume.self, LookUpVolume.Answer.self, ListVolumes.self, ListVolumes.Answer.self, OpenNexus.self,
    OpenNexus.Answer.self, ResumeNexus.self, ResumeNexus.Answer.self, CloseNexus.self, Stamps.self,
    Stamps.Answer.self, TargetHeartbeatMessage.self, ReadCommand.self, ReadCommand.Answer.self, WriteCommand.self,
    ZeroCommand.self, CompareAndWriteCommand.self, FenceCommand.self, CommandAnswer.self, MoveWork.self,
    MoveWork.Answer.self, MapMove.self, MapCompaction.self, CountAnswer.self, Evict.self, CompactionWork.self,
    CompactionWork.Answer.self, Collect.self, Collect.Answer.self, ForgetObjects.self, KnownObjects.self,
    PutObject.self, GetSlots.self, GetSlots.Answer.self, DeleteObject.self, ListObjects.self, ListObjects.Answer.self,
    VerifyObject.self, ObjectStatistics.self, ObjectStatistics.Answer.self, ReloadVolume.self, CacheStatistics.self,
    CacheStatistics.Answer.self, MoveNow.self, DeleteVolumeStep.self, TargetReport.self, TargetReport.Answer.self,
    NexusStates.self, OrWriteCommand.self, MapStatusCommand.self, MapStatusCommand.Answer.self, CheckUnit.self,
    CheckUnit.Answer.self, ChangeUnit.self, ManageUnit.self, CopyCommand.self,
    DatabaseAge.self, DatabaseAge.Answer.self, ScrubWork.self, ScrubWork.Answer.self, ReportObjects.self,
    DrainingServers.self, DrainingServers.Answer.self, ObjectHeader.self, ObjectHeader.Answer.self, RaiseClock.self,
    RaiseClock.Answer.self, BeginDirect.self, BeginDirect.Answer.self, MapDirect.self, MapDirect.Answer.self,
    FindSlots.self, FindSlots.Answer.self,
]

private func check<M: RPCMessage>(_ type: M.Type, _ body: ByteBuffer) throws(FuzzFailure) {
    try check(body, { buffer throws(RPCDecodingError) in try M(decoding: &buffer) }) { $0.encode(into: &$1) }
}

private func check<Message>(
    _ body: ByteBuffer,
    _ decode: (inout ByteBuffer) throws(RPCDecodingError) -> Message,
    _ encode: (Message, inout ByteBuffer) -> Void
) throws(FuzzFailure) {
    var left = body
    let message: Message
    do throws(RPCDecodingError) {
        message = try decode(&left)
    } catch {
        return
    }
    let count = body.readableBytes - left.readableBytes
    var encoded = ByteBuffer()
    encode(message, &encoded)
    try require(
        encoded == body.getSlice(at: body.readerIndex, length: count),
        "\(Message.self) of \(count) bytes is another after encoding"
    )
    var again = encoded
    do throws(RPCDecodingError) {
        _ = try decode(&again)
    } catch {
        throw FuzzFailure("an encoded \(Message.self) is not decoded: \(error)")
    }
    try require(again.readableBytes == 0, "a \(Message.self) leaves bytes of its own")
}

/// An answer's error takes any body.
private func checkError(_ body: ByteBuffer) throws(FuzzFailure) {
    for status in [RPCStatus.wrongEpoch, .notOwner, .miscompare] {
        let error = RPCError(status: status, decoding: body)
        _ = error.ownerHint
        _ = error.description
        var encoded = ByteBuffer()
        error.encode(into: &encoded)
        let again = RPCError(status: status, decoding: encoded)
        try require(again == error, "an error is another after encoding")
    }
}
