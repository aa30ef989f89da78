public import AshlarCore
public import NIOCore

/// ORs bytes into a volume; the bytes follow as payload.
public struct OrWriteCommand: RPCMessage {
    /// 0x25.
    public static let type = RPCMessageType.orWrite
    /// Nexus, number, evidence; where, and the checksums of the pieces.
    public var write: WriteCommand

    /// An ORWRITE with what a write has.
    public init(_ write: WriteCommand) { self.write = write }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        write = try WriteCommand(decoding: &buffer)
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) { write.encode(into: &buffer) }
}

/// Asks which data blocks are mapped.
public struct MapStatusCommand: RPCMessage {
    /// 0x26.
    public static let type = RPCMessageType.mapStatus
    /// Nexus, number, evidence.
    public var header: CommandHeader
    /// The bytes; the answer may end before they do.
    public var range: ByteRange
    /// Most runs to be told.
    public var runsMaximum: UInt32

    /// A question for a range.
    public init(header: CommandHeader, range: ByteRange, runsMaximum: UInt32) {
        self.header = header
        self.range = range
        self.runsMaximum = runsMaximum
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        header = try CommandHeader(decoding: &buffer)
        range = try buffer.readRPCByteRange()
        runsMaximum = try buffer.readRPC()
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        header.encode(into: &buffer)
        buffer.writeRPCByteRange(range)
        buffer.writeRPC(runsMaximum)
    }

    /// Runs from the first block that the range touches on.
    public struct Answer: RPCMessage {
        /// 0x26.
        public static let type = RPCMessageType.mapStatus
        /// The owner's time.
        public var stamp: Stamp
        /// The runs, in block order, without gaps.
        public var runs: [MappedRun]

        /// An answer with its runs.
        public init(stamp: Stamp, runs: [MappedRun]) {
            self.stamp = stamp
            self.runs = runs
        }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            stamp = try buffer.readRPCStamp()
            runs = try buffer.readRPCArray(
                minimumElementBytes: 17,
                maximumCount: RPCMessageLimits.mapRunsMaximum
            ) { (b: inout ByteBuffer) throws(RPCDecodingError) in
                MappedRun(blocks: try b.readRPCBlockRange(), isMapped: try b.readRPCBool())
            }
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            buffer.writeRPCStamp(stamp)
            buffer.writeRPCArray(runs) {
                $0.writeRPCBlockRange($1.blocks)
                $0.writeRPCBool($1.isMapped)
            }
        }
    }
}

/// Asks whether a command that needs nothing but the unit's state may be done, and for that state.
public struct CheckUnit: RPCMessage {
    /// 0x27.
    public static let type = RPCMessageType.checkUnit
    /// Nexus, number, evidence.
    public var header: CommandHeader
    /// What the command is.
    public var rules: CommandRules
    /// Whether registrations and reservation are to be told.
    public var wantsReservations: Bool

    /// A question for a command.
    public init(header: CommandHeader, rules: CommandRules, wantsReservations: Bool) {
        self.header = header
        self.rules = rules
        self.wantsReservations = wantsReservations
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        header = try CommandHeader(decoding: &buffer)
        rules = try buffer.readRPCRules()
        wantsReservations = try buffer.readRPCBool()
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        header.encode(into: &buffer)
        buffer.writeRPCRules(rules)
        buffer.writeRPCBool(wantsReservations)
    }

    /// The state: the command may be done.
    public struct Answer: RPCMessage {
        /// 0x27.
        public static let type = RPCMessageType.checkUnit
        /// The owner's time.
        public var stamp: Stamp
        /// The state.
        public var report: UnitReport

        /// An answer with the state.
        public init(stamp: Stamp, report: UnitReport) {
            self.stamp = stamp
            self.report = report
        }

        /// Reads the fields in the order of the specification.
        public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
            stamp = try buffer.readRPCStamp()
            report = try buffer.readRPCUnitReport()
        }

        /// Appends the fields in the order of the specification.
        public func encode(into buffer: inout ByteBuffer) {
            buffer.writeRPCStamp(stamp)
            buffer.writeRPCUnitReport(report)
        }
    }
}

/// Changes the state of a logical unit.
public struct ChangeUnit: RPCMessage {
    /// 0x28.
    public static let type = RPCMessageType.changeUnit
    /// Nexus, number, evidence.
    public var header: CommandHeader
    /// What to do.
    public var action: UnitAction

    /// A change.
    public init(header: CommandHeader, action: UnitAction) {
        self.header = header
        self.action = action
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        header = try CommandHeader(decoding: &buffer)
        action = try buffer.readRPCUnitAction()
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        header.encode(into: &buffer)
        buffer.writeRPCUnitAction(action)
    }
}

/// Task management of all nexuses.
public struct ManageUnit: RPCMessage {
    /// 0x29.
    public static let type = RPCMessageType.manageUnit
    /// Nexus, number, evidence. Its own number bounds those of the nexus that are hit.
    public var header: CommandHeader
    /// What to do.
    public var function: UnitManagement

    /// A task management function.
    public init(header: CommandHeader, function: UnitManagement) {
        self.header = header
        self.function = function
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        header = try CommandHeader(decoding: &buffer)
        guard let function = UnitManagement(rawValue: try buffer.readRPC()) else {
            throw RPCDecodingError.invalidValue(field: "unit management")
        }
        self.function = function
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        header.encode(into: &buffer)
        buffer.writeRPC(function.rawValue)
    }
}
