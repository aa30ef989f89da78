public import AshlarCore
public import DequeModule

/// What is known of the commands of a nexus that have no answer yet, by their ids.
///
/// Ids are dense and only grow: each has a slot, from the oldest command without an answer on. So a command is found without
/// hashing, and a value is changed where it lies.
@usableFromInline
struct CommandWindow<Value> {
    /// The first one has a value, where there is any.
    @usableFromInline var slots: Deque<Value?> = []
    /// The id of the first slot.
    @usableFromInline var first = CommandID(0)
    /// Slots with a value.
    @usableFromInline var count = 0

    @inlinable
    init() {}

    /// The oldest command without an answer.
    @inlinable
    var lowest: CommandID? { slots.isEmpty ? nil : first }

    /// All ids from the oldest on; some may have no value any more.
    @inlinable
    var span: Range<UInt64> { first.rawValue..<first.rawValue + UInt64(slots.count) }

    /// Where a command lies; nil where it has no value.
    @inlinable
    func index(of id: CommandID) -> Int? {
        guard id >= first, id.rawValue - first.rawValue < UInt64(slots.count) else { return nil }
        let index = Int(id.rawValue - first.rawValue)
        return slots[index] == nil ? nil : index
    }

    @inlinable
    subscript(id: CommandID) -> Value? { index(of: id).flatMap { slots[$0] } }

    /// Adds the next command: its id is the one behind the last.
    @inlinable
    mutating func append(_ value: Value, as id: CommandID) {
        if slots.isEmpty { first = id }
        precondition(id.rawValue == span.upperBound, "ids of commands are dense")
        slots.append(value)
        count += 1
    }

    /// Changes what is known of a command, where anything is.
    @inlinable
    mutating func update(_ id: CommandID, _ change: (inout Value) -> Void) {
        guard let index = index(of: id) else { return }
        change(&slots[index]!)
    }

    /// Forgets a command.
    @inlinable
    mutating func remove(_ id: CommandID) {
        guard let index = index(of: id) else { return }
        slots[index] = nil
        count -= 1
        while !slots.isEmpty, slots[0] == nil {
            slots.removeFirst()
            first = CommandID(first.rawValue + 1)
        }
    }

    @inlinable
    mutating func removeAll() {
        slots = []
        count = 0
    }
}

extension CommandWindow: Sendable where Value: Sendable {}
