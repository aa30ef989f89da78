import Glibc
import Logging
import NIOCore
import NIOPosix

/// Gives each connection that the portal accepts to the event loop which has the fewest; there it stays.
///
/// Handler of the listening channel, on the first loop. What stays on this loop goes on through the pipeline; for another one, the
/// socket gets a channel of its own there. A channel is never moved: what NIO made of the socket here has read nothing, and is
/// closed without the connection, which the second descriptor keeps.
final class ConnectionSpreader: ChannelInboundHandler {
    typealias InboundIn = any Channel
    typealias InboundOut = any Channel

    private let node: NIOLoopBoundBox<SharedNode?>
    private let logger: Logger

    /// - Parameter node: Empty until the node can take connections.
    init(node: NIOLoopBoundBox<SharedNode?>, logger: Logger) {
        self.node = node
        self.logger = logger
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let channel = unwrapInboundIn(data)
        guard let node = node.value else { return channel.close(promise: nil) }
        guard let number = node.withState({ $0.connectionArrived() }) else {
            logger.debug("a connection is refused", metadata: ["reason": "\(TargetError.tooManyConnections)"])
            return channel.close(promise: nil)
        }
        let service = node.all[number]
        if service.eventLoop === context.eventLoop {
            channel.closeFuture.whenComplete { _ in node.withState { $0.connectionEnded(on: number) } }
            context.fireChannelRead(data)
        } else {
            handOver(channel, to: service, number, node)
        }
    }

    private func handOver(
        _ channel: any Channel,
        to service: NIOLoopBound<TargetService>,
        _ number: Int,
        _ node: SharedNode
    ) {
        let logger = logger
        let failed = { @Sendable (reason: String) in
            node.withState { $0.connectionEnded(on: number) }
            logger.info("a connection could not be given to its event loop", metadata: ["reason": "\(reason)"])
        }
        let descriptor: CInt
        do {
            descriptor = try Self.secondDescriptor(of: channel)
        } catch {
            channel.close(promise: nil)
            return failed("\(error)")
        }
        channel.close(promise: nil)
        ClientBootstrap(group: service.eventLoop)
            .portalOptions()
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try service.value.accept(channel) }
            }
            .withConnectedSocket(descriptor)
            .whenComplete { result in
                switch result {
                case .success(let channel):
                    channel.closeFuture.whenComplete { _ in node.withState { $0.connectionEnded(on: number) } }
                case .failure(is TargetError):
                    // It was not let in, which is logged.
                    node.withState { $0.connectionEnded(on: number) }
                case .failure(let error): failed("\(error)")
                }
            }
    }
}

extension ConnectionSpreader {
    /// Another descriptor of a channel's socket, which stays open when the channel is closed.
    private static func secondDescriptor(of channel: any Channel) throws -> CInt {
        let descriptor = try channel.pipeline.syncOperations.withUnsafeTransportIfAvailable(
            of: NIOBSDSocket.Handle.self
        ) { handle in
            let second = fcntl(handle, F_DUPFD_CLOEXEC, 0)
            guard second >= 0 else { throw IOError(errnoCode: errno, reason: "fcntl") }
            return second
        }
        guard let descriptor else { throw ChannelError.operationUnsupported }
        return descriptor
    }
}

// How the sockets of initiators are used, whichever loop serves them.
extension ServerBootstrap {
    func portalOptions() -> ServerBootstrap {
        childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(.maxMessagesPerRead, value: TargetLimits.readsAtOnce)
            .childChannelOption(.writeBufferWaterMark, value: TargetLimits.outputMarks)
            .childChannelOption(.recvAllocator, value: TargetLimits.receiveAllocator)
    }
}

extension ClientBootstrap {
    fileprivate func portalOptions() -> ClientBootstrap {
        channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelOption(.maxMessagesPerRead, value: TargetLimits.readsAtOnce)
            .channelOption(.writeBufferWaterMark, value: TargetLimits.outputMarks)
            .channelOption(.recvAllocator, value: TargetLimits.receiveAllocator)
    }
}

extension TargetLimits {
    /// Reads of a socket in one turn of its loop.
    fileprivate static let readsAtOnce: UInt = 4
    fileprivate static let outputMarks = ChannelOptions.Types.WriteBufferWaterMark(
        low: outputLowBytes,
        high: outputHighBytes
    )
    /// Made anew for each channel: it adapts to what that receives.
    fileprivate static var receiveAllocator: AdaptiveRecvByteBufferAllocator {
        AdaptiveRecvByteBufferAllocator(minimum: 4_096, initial: 65_536, maximum: 1 << 20)
    }
}
