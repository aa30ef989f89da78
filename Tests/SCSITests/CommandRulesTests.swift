import AshlarCore
import Testing

@testable import SCSI

@Suite struct CommandRulesTests {
    private func names(where condition: (CommandRules) -> Bool) -> Set<String> {
        let matching = CommandLayout.all.filter { condition(CommandSet.block.rules(cdb: $0.bare, lun: 0)) }
        return Set(matching.map(\.name))
    }

    /// SPC-2, 5.5.1; RESERVE itself conflicts where the owner sees it.
    @Test func allowedUnderReserve() {
        #expect(
            names(where: \.isAllowedUnderReserve) == [
                "INQUIRY", "REPORT LUNS", "REQUEST SENSE", "RESERVE (6)", "RESERVE (10)", "RELEASE (6)",
                "RELEASE (10)", "REPORT TARGET PORT GROUPS", "REPORT SUPPORTED OPERATION CODES",
                "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
            ]
        )
    }

    /// REQUEST SENSE to another LUN takes nothing that waits for the logical unit.
    @Test func otherLUNsAreNoMatterOfTheUnit() {
        for layout in CommandLayout.all {
            #expect(CommandSet.block.rules(cdb: layout.bare, lun: 5 << 48) == .information, "\(layout.name)")
        }
        let requestSense = CommandSet.block.rules(cdb: hex("03 00 00 00 FC 00"), lun: 1 << 62)
        #expect(requestSense.attention == .deliver, "LUN 0, in the flat addressing method")
    }

    /// SBC-4, 4.11.2 and 5.4.
    @Test func allowedDuringErasure() {
        #expect(
            names(where: \.isAllowedDuringErasure).isSuperset(of: [
                "INQUIRY", "REPORT LUNS", "REQUEST SENSE", "REPORT TARGET PORT GROUPS",
                "REPORT SUPPORTED OPERATION CODES", "LOG SENSE", "READ KEYS", "READ RESERVATION",
                "REPORT CAPABILITIES", "READ FULL STATUS",
            ])
        )
        #expect(
            names(where: \.isAllowedDuringErasure).isDisjoint(with: [
                "TEST UNIT READY", "MODE SENSE (6)", "MODE SELECT (6)", "READ CAPACITY (10)", "READ (10)", "WRITE (10)",
                "REGISTER", "RESERVE (6)", "REPORT IDENTIFYING INFORMATION", "START STOP UNIT",
            ])
        )
    }

    /// SPC-5, 5.14.1 and SBC-4, 4.17: what is allowed in the presence of persistent reservations.
    @Test func access() {
        let any = [
            "TEST UNIT READY", "REQUEST SENSE", "INQUIRY", "REPORT LUNS", "START STOP UNIT", "READ CAPACITY (10)",
            "READ CAPACITY (16)", "LOG SENSE", "REPORT IDENTIFYING INFORMATION", "REPORT TARGET PORT GROUPS",
            "REPORT SUPPORTED OPERATION CODES", "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", "READ KEYS",
            "READ RESERVATION", "REPORT CAPABILITIES", "READ FULL STATUS", "REGISTER", "RESERVE", "RELEASE", "CLEAR",
            "PREEMPT", "PREEMPT AND ABORT", "REGISTER AND IGNORE EXISTING KEY", "REGISTER AND MOVE", "RESERVE (6)",
            "RESERVE (10)", "RELEASE (6)", "RELEASE (10)",
        ]
        let read = [
            "READ (6)", "READ (10)", "READ (12)", "READ (16)", "VERIFY (10)", "VERIFY (12)", "VERIFY (16)",
            "PRE-FETCH (10)", "PRE-FETCH (16)", "MODE SENSE (6)", "MODE SENSE (10)",
        ]
        let write = [
            "WRITE (6)", "WRITE (10)", "WRITE (12)", "WRITE (16)", "COMPARE AND WRITE", "WRITE SAME (10)",
            "WRITE SAME (16)", "UNMAP", "SYNCHRONIZE CACHE (10)", "SYNCHRONIZE CACHE (16)", "MODE SELECT (6)",
            "MODE SELECT (10)", "SET IDENTIFYING INFORMATION",
        ]
        #expect(names { $0.access == .any }.isSuperset(of: any))
        #expect(names { $0.access == .read }.isSuperset(of: read))
        #expect(names { $0.access == .write }.isSuperset(of: write))
    }
}
