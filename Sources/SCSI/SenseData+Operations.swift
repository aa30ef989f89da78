// Conditions of operations that outlast their command: erasures and copies.

extension AdditionalSense {
    /// LOGICAL UNIT NOT READY, FORMAT IN PROGRESS.
    public static let formatInProgress = AdditionalSense(0x04, 0x04)
    /// LOGICAL UNIT NOT READY, SANITIZE IN PROGRESS.
    public static let sanitizeInProgress = AdditionalSense(0x04, 0x1B)
    /// OPERATION IN PROGRESS.
    public static let operationInProgress = AdditionalSense(0x00, 0x16)
    /// UNREACHABLE COPY TARGET.
    public static let unreachableCopyTarget = AdditionalSense(0x08, 0x04)
    /// INCORRECT COPY TARGET DEVICE TYPE.
    public static let incorrectCopyDeviceType = AdditionalSense(0x0D, 0x03)
    /// TOO MANY TARGET DESCRIPTORS.
    public static let tooManyCopyDevices = AdditionalSense(0x26, 0x06)
    /// UNSUPPORTED TARGET DESCRIPTOR TYPE CODE.
    public static let unsupportedCopyDeviceType = AdditionalSense(0x26, 0x07)
    /// TOO MANY SEGMENT DESCRIPTORS.
    public static let tooManyCopySegments = AdditionalSense(0x26, 0x08)
    /// UNSUPPORTED SEGMENT DESCRIPTOR TYPE CODE.
    public static let unsupportedCopySegmentType = AdditionalSense(0x26, 0x09)
    /// UNEXPECTED INEXACT SEGMENT.
    public static let inexactCopySegment = AdditionalSense(0x26, 0x0A)
    /// INLINE DATA LENGTH EXCEEDED.
    public static let inlineDataLengthExceeded = AdditionalSense(0x26, 0x0B)
}

extension SenseData {
    /// The logical unit is being sanitized (SBC-4, 4.11.2).
    public static func sanitizeInProgress(progress: UInt16) -> SenseData {
        SenseData(.notReady, .sanitizeInProgress, progress: progress)
    }

    /// The logical unit is being formatted (SBC-4, 5.4).
    public static func formatInProgress(progress: UInt16) -> SenseData {
        SenseData(.notReady, .formatInProgress, progress: progress)
    }

    /// Another copy of the nexus has the list identifier (SPC-4, 6.4).
    public static let copyInProgress = SenseData(.illegalRequest, .operationInProgress)
    /// A copy cannot go on, for example beyond the end of a device.
    public static let copyAborted = SenseData(.copyAborted, .none)
    /// COPY ABORTED, INCORRECT COPY TARGET DEVICE TYPE: DISK BLOCK LENGTH is not that of the device.
    public static let wrongCopyBlockLength = SenseData(.copyAborted, .incorrectCopyDeviceType)
    /// A segment names a device that is not there.
    public static let unreachableCopyTarget = SenseData(.copyAborted, .unreachableCopyTarget)
    /// The bytes of a segment are not whole logical blocks of its destination.
    public static let inexactCopySegment = SenseData(.copyAborted, .inexactCopySegment)
}
