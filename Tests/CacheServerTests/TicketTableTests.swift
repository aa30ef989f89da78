import AshlarTestSupport
import Ownership
import Testing

@testable import CacheServer

/// Who waits for which answer.
@Suite struct TicketTableTests {
    /// The slot of a ticket: its low bits.
    private func slot(_ ticket: Ticket) -> UInt64 { ticket.rawValue & (1 << 24 - 1) }

    @Test func eachTicketNamesWhoWaitsForItOnce() {
        var table = TicketTable<String>()
        let first = table.add("first")
        let second = table.add("second")
        #expect(first != second)
        #expect(table.take(second) == "second")
        #expect(table.take(first) == "first")
        #expect(table.take(first) == nil)
        #expect(table.take(second) == nil)
    }

    @Test func anOldTicketDoesNotNameWhoHasItsSlotNow() {
        var table = TicketTable<String>()
        let old = table.add("old")
        #expect(table.take(old) == "old")
        let new = table.add("new")
        #expect(slot(new) == slot(old))
        #expect(new != old)
        #expect(table.take(old) == nil)
        #expect(table.take(new) == "new")
    }

    @Test func aTicketThatWasNeverMadeNamesNobodyAndTakesNoSlot() {
        var table = TicketTable<String>()
        #expect(table.take(Ticket(0)) == nil)
        let first = table.add("first")
        #expect(table.take(Ticket(slot(first))) == nil)
        #expect(table.take(Ticket(first.rawValue + 1)) == nil)
        #expect(table.take(Ticket(first.rawValue + 1 << 24)) == nil)
        #expect(table.take(Ticket(.max)) == nil)
        #expect(table.take(first) == "first")
        // A slot that is free: what names it must not make it free a second time, for two would have it then.
        for ticket in [Ticket(0), Ticket(slot(first)), first] { #expect(table.take(ticket) == nil) }
        let tickets = ["a", "b", "c"].map { table.add($0) }
        #expect(Set(tickets.map(slot)).count == 3)
        #expect(tickets.map { table.take($0) } == ["a", "b", "c"])
    }

    @Test func slotsAreUsedAgain() {
        var table = TicketTable<Int>()
        for round in 0..<1_000 {
            let tickets = (0..<8).map { table.add(round * 8 + $0) }
            for (number, ticket) in tickets.enumerated() {
                #expect(slot(ticket) < 8)
                #expect(table.take(ticket) == round * 8 + number)
            }
        }
    }

    @Test func inAnyOrderEverybodyIsNamedOnce() {
        var random = SeededGenerator(seed: 1)
        var table = TicketTable<Int>()
        var waiting: [(ticket: Ticket, waiter: Int)] = []
        var answered: [Ticket] = []
        var made: Set<Ticket> = []
        for step in 0..<20_000 {
            // Up to some hundred wait at once; they get fewer and more in turns.
            if waiting.isEmpty || random.chance(step % 2_000 < 1_000 ? 60 : 40) {
                let ticket = table.add(step)
                #expect(made.insert(ticket).inserted)
                waiting.append((ticket, step))
            } else {
                let next = waiting.remove(at: random.below(waiting.count))
                #expect(table.take(next.ticket) == next.waiter)
                answered.append(next.ticket)
            }
            if !answered.isEmpty, random.chance(10) {
                #expect(table.take(answered[random.below(answered.count)]) == nil)
            }
        }
        for (ticket, waiter) in waiting { #expect(table.take(ticket) == waiter) }
    }
}
