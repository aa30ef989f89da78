import AshlarCore
import Ownership
import RPC
import SCSI
import Transport

// What the owner's answers mean for the nexus.
extension ISCSISession {
    func disposition(
        of result: Result<RPCAnswer, RPCFailure>,
        for request: BackEndRequest
    ) -> NexusDisposition<BackEndAnswer> {
        switch result {
        case .failure:
            // Whether it was executed shows once the owner is found again (R4).
            return .ownerLost
        case .success(var answer):
            do throws(RPCError) {
                switch request.operation {
                case .read:
                    let read = try answer.decode(ReadCommand.Answer.self)
                    return .final(.read(read, payload: answer.body), read.stamp)
                case .check:
                    let checked = try answer.decode(CheckUnit.Answer.self)
                    return .final(.checked(checked.report), checked.stamp)
                case .mapStatus:
                    let mapped = try answer.decode(MapStatusCommand.Answer.self)
                    return .final(.mapped(mapped.runs), mapped.stamp)
                case .write, .zero, .compareAndWrite, .orWrite, .copy, .unit, .manage:
                    let done = try answer.decode(CommandAnswer.self)
                    return .final(.done, done.stamp)
                }
            } catch {
                return disposition(of: error)
            }
        }
    }

    func disposition(of error: RPCError) -> NexusDisposition<BackEndAnswer> {
        var detail = error.detail
        let stamp = (try? CommandAnswer(decoding: &detail))?.stamp
        switch error.status {
        case .unproved: return .unproved(stamp)
        case .wrongEpoch: return .ownerLost
        case .notOwner:
            backend?.ownerMoves(to: error.ownerHint)
            return .ownerLost
        case .nexusClosed: return .nexusClosed
        default:
            guard let geometry = unit?.volume.geometry else { return .final(.failed(.internalError), nil) }
            return .refused(.failed(BackEndFailure(error, geometry: geometry)), stamp)
        }
    }

    func resume(_ number: NexusNumber, _ stamp: Stamp) {
        guard let client = backend?.owner?.client, let volume = backend?.volume else {
            nexus?.ownerLost()
            return
        }
        client.send(
            ResumeNexus(volume: volume.id, nexus: number, stamp: stamp),
            deadlineMilliseconds: TargetLimits.controlDeadlineMilliseconds
        ) { [self] result in
            defer { drain() }
            guard case .success(var answer) = result else {
                nexus?.ownerLost()
                return
            }
            do throws(RPCError) {
                let resumed = try answer.decode(ResumeNexus.Answer.self)
                nexus?.resumed(done: resumed.done, aborted: resumed.aborted, resumed.stamp)
            } catch {
                var detail = error.detail
                switch error.status {
                case .unproved: nexus?.resumeRefused(unproved: (try? CommandAnswer(decoding: &detail))?.stamp)
                case .nexusClosed: nexus?.resumeRefused(unproved: nil)
                default: nexus?.ownerLost()
                }
            }
        }
    }
}
