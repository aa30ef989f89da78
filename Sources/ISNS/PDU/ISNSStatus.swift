/// How a request ended (RFC 4171, 5.4).
package struct ISNSStatus: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    /// The code.
    package var rawValue: UInt32
    /// Wraps a code.
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Done.
    package static let successful = ISNSStatus(rawValue: 0)
    /// The message does not have the form that it must have.
    package static let messageFormatError = ISNSStatus(rawValue: 2)
    /// The objects cannot be registered so.
    package static let invalidRegistration = ISNSStatus(rawValue: 3)
    /// The source is not registered.
    package static let sourceUnknown = ISNSStatus(rawValue: 6)
    /// There is no such object.
    package static let noSuchEntry = ISNSStatus(rawValue: 9)
    /// The function is not supported.
    package static let messageNotSupported = ISNSStatus(rawValue: 15)
    /// The notification was not understood.
    package static let notificationRejected = ISNSStatus(rawValue: 16)
    /// Notifications cannot be had so.
    package static let notificationRegistrationRejected = ISNSStatus(rawValue: 17)
    /// The server does not inquire.
    package static let inquiryNotAvailable = ISNSStatus(rawValue: 21)

    private static let names = [
        "Successful", "Unknown Error", "Message Format Error", "Invalid Registration", "Reserved", "Invalid Query",
        "Source Unknown", "Source Absent", "Source Unauthorized", "No Such Entry", "Version Not Supported",
        "Internal Error", "Busy", "Option Not Understood", "Invalid Update", "Message Not Supported",
        "SCN Event Rejected", "SCN Registration Rejected", "Attribute Not Implemented", "FC Domain Not Available",
        "FC Domain Not Allocated", "ESI Not Available", "Invalid Deregistration",
        "Registration Feature Not Supported",
    ]

    /// The name in the standard, with the code.
    package var description: String {
        guard let index = Int(exactly: rawValue), index < Self.names.count else { return "status \(rawValue)" }
        return "\(Self.names[index]) (\(rawValue))"
    }
}
