import Ownership

/// Who waits for the answers to the core's tickets: a slot for each, found without hashing.
///
/// A ticket is a sequence that only grows, and in the low bits its slot: one that was answered names nobody any more, though
/// its slot is used again.
struct TicketTable<Waiter> {
    private static var slotBits: UInt64 { 24 }

    private var slots: [(ticket: UInt64, waiter: Waiter?)] = []
    private var free: [UInt32] = []
    private var sequence: UInt64 = 0

    /// Makes a ticket for who waits.
    mutating func add(_ waiter: Waiter) -> Ticket {
        sequence += 1
        let slot: Int
        if let last = free.popLast() {
            slot = Int(last)
        } else {
            slot = slots.count
            precondition(slot < 1 << Self.slotBits, "requests in flight are bounded by the connections")
            slots.append((0, nil))
        }
        let ticket = sequence << Self.slotBits | UInt64(slot)
        slots[slot] = (ticket, waiter)
        return Ticket(ticket)
    }

    /// Who waits for a ticket, and does so no more; nil where nobody does.
    mutating func take(_ ticket: Ticket) -> Waiter? {
        let slot = Int(ticket.rawValue & (1 << Self.slotBits - 1))
        guard slot < slots.count, slots[slot].ticket == ticket.rawValue, let waiter = slots[slot].waiter else {
            return nil
        }
        slots[slot] = (0, nil)
        free.append(UInt32(slot))
        return waiter
    }
}
