import AshlarCore
import ISCSI
import Logging
import NIOCore

/// The first handler of a connection that comes through a proxy: takes its PROXY header, judges the initiator's own address by
/// it, and hands over to the handler of the session.
///
/// A connection of which nothing good comes is closed before anything of iSCSI is read, with a log line that names its
/// address.
final class ProxyHeaderHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    private let access: PortalAccess
    private let logger: Logger
    private let makeSession: (_ address: String) -> any ChannelHandler
    private var decoder = ProxyHeaderDecoder()
    private var deadline: Scheduled<Void>?
    private var isClosing = false

    /// - Parameter makeSession: Makes the handler that follows; is given what the log calls the initiator.
    init(access: PortalAccess, logger: Logger, makeSession: @escaping (_ address: String) -> any ChannelHandler) {
        self.access = access
        self.logger = logger
        self.makeSession = makeSession
    }

    func handlerAdded(context: ChannelHandlerContext) {
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        deadline = context.eventLoop.scheduleTask(in: TargetLimits.proxyHeaderTimeout) {
            let (handler, context) = bound.value
            handler.close(context, "a connection is refused: it sends no PROXY header")
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) { deadline?.cancel() }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isClosing else { return }
        var bytes = unwrapInboundIn(data)
        do throws(ProxyHeaderDecoder.Failure) {
            guard let header = try decoder.decode(&bytes) else { return }
            take(header, rest: bytes, context: context)
        } catch {
            close(context, "a connection is refused: \(error.rawValue)")
        }
    }

    private func take(_ header: ProxyHeader, rest: ByteBuffer, context: ChannelHandlerContext) {
        let proxy = PortalAccess.text(context.remoteAddress)
        let address: NetworkAddress?
        let name: String
        switch header {
        case .proxied(let source, let port):
            address = source
            name = "\(source.family == .ipv6 ? "[\(source)]" : "\(source)"):\(port) by \(proxy)"
        case .local:
            address = NetworkAddress(context.remoteAddress)
            name = proxy
        case .unknown:
            address = nil
            name = "unknown by \(proxy)"
        }
        guard access.admitsInitiator(address) else {
            return close(context, PortalAccess.initiatorRefused, peer: name)
        }
        deadline?.cancel()
        do {
            let session = makeSession(name)
            try context.pipeline.syncOperations.addHandler(session, position: .after(self))
        } catch {
            return close(context, "a connection cannot be served: \(error)", peer: name)
        }
        if rest.readableBytes > 0 { context.fireChannelRead(wrapInboundOut(rest)) }
        context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        deadline?.cancel()
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // No warning: a health check that only connects ends like this.
        logger.debug("a connection failed before its PROXY header was there", metadata: ["error": "\(error)"])
        context.close(promise: nil)
    }

    private func close(_ context: ChannelHandlerContext, _ message: Logger.Message, peer: String? = nil) {
        guard !isClosing else { return }
        isClosing = true
        deadline?.cancel()
        logger.warning(message, metadata: ["peer": "\(peer ?? PortalAccess.text(context.remoteAddress))"])
        context.close(promise: nil)
    }
}
