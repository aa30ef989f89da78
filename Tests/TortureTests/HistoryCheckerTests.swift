import Testing

@testable import ashlar_torture

/// The checker explains what a correct disk may show, and finds each way in which one can lie.
@Suite struct HistoryCheckerTests {
    @Test func readsOfTheNewestWriteAreExplained() {
        #expect(
            check(
                "R 0 8 1 2 0:8",
                "W 1 0 8 10 20 o",
                "R 0 8 30 40 1:8",
                "W 2 4 8 50 60 o",
                "R 0 12 70 80 1:4 2:8"
            ).isEmpty
        )
    }

    @Test func whatOverlapsMayBeSeenOrNot() {
        #expect(check("W 1 0 1 10 50 o", "R 0 1 20 30 0:1", "R 0 1 22 40 1:1", "R 0 1 60 70 1:1").isEmpty)
        #expect(check("W 1 0 1 10 50 o", "W 2 0 1 10 50 o", "R 0 1 60 70 1:1").isEmpty)
        #expect(check("W 1 0 1 10 50 o", "W 2 0 1 10 50 o", "R 0 1 60 70 2:1").isEmpty)
    }

    @Test func aWriteThatFailedMayHaveHappenedBeforeItsAnswer() {
        #expect(check("W 1 0 1 10 20 f", "R 0 1 30 40 1:1").isEmpty)
        #expect(check("W 1 0 1 10 20 f", "R 0 1 30 40 0:1").isEmpty)
    }

    @Test func aLostWriteIsFound_I1() {
        #expect(!check("W 1 0 1 10 20 o", "R 0 1 30 40 0:1").isEmpty)
        #expect(!check("W 1 0 1 1 2 o", "W 2 0 1 10 20 o", "R 0 1 30 40 1:1").isEmpty)
    }

    @Test func aStaleReadIsFound_I2() {
        #expect(
            !check("W 1 0 1 1 2 o", "W 2 0 1 10 90 o", "R 0 1 20 30 2:1", "R 0 1 40 50 1:1").isEmpty,
            "once seen, it stays"
        )
    }

    @Test func aWriteThatLandsAfterTheRetryIsFound_I4_D1() {
        // The first one was lost with its connection; the session that followed was answered at 30.
        let lines = ["W 1 0 1 10 30 l", "W 2 0 1 40 50 o"]
        #expect(check(lines[0], lines[1], "R 0 1 60 70 2:1").isEmpty)
        #expect(!check(lines[0], lines[1], "R 0 1 60 70 1:1").isEmpty)
        #expect(!check(lines[0], lines[1], "R 0 1 52 55 2:1", "R 0 1 60 70 1:1").isEmpty)
    }

    @Test func aWriteThatNeverEndedMayLandAtAnyTimeButOnlyOnce() {
        #expect(check("W 1 0 1 10 0 l", "W 2 0 1 40 50 o", "R 0 1 60 70 2:1", "R 0 1 80 90 1:1").isEmpty)
        #expect(
            !check("W 1 0 1 10 0 l", "W 2 0 1 40 50 o", "R 0 1 60 70 1:1", "R 0 1 80 90 2:1", "R 0 1 92 94 1:1").isEmpty
        )
    }

    @Test func aValueThatComesBackIsFound_I5() {
        #expect(
            !check(
                "W 1 0 1 1 2 o",
                "R 0 1 3 4 1:1",
                "W 2 0 1 5 6 o",
                "R 0 1 7 8 2:1",
                "R 0 1 9 10 1:1"
            ).isEmpty
        )
    }

    @Test func aValueThatNobodyWroteThereIsFound() {
        #expect(!check("W 1 0 1 1 2 o", "R 5 1 3 4 1:1").isEmpty)
        #expect(!check("R 5 1 3 4 9:1").isEmpty)
        #expect(!check("R 0 1 3 4 1:1", "W 1 0 1 10 20 o").isEmpty, "read before it was written")
    }

    @Test func aTornCommandIsFound_I12() {
        // Both cover both sectors; each sector by itself could be explained.
        let writes = ["W 1 0 2 10 90 o", "W 2 0 2 10 90 o"]
        #expect(check(writes[0], writes[1], "R 0 2 20 80 2:2").isEmpty)
        #expect(!check(writes[0], writes[1], "R 0 2 20 80 1:1 2:1").isEmpty)
        #expect(!check("W 1 0 2 10 90 o", "R 0 2 20 80 1:1 0:1").isEmpty, "half of it")
        #expect(!check("W 1 1 1 1 2 o", "W 2 0 2 10 90 o", "R 0 2 20 80 2:1 1:1").isEmpty, "half of it over another")
        #expect(check("W 1 1 1 1 90 o", "W 2 0 2 10 90 o", "R 0 2 20 80 2:1 1:1").isEmpty, "the other may be newer")
    }

    @Test func compareAndWriteReadsWhatItExpected_D3() {
        #expect(check("W 1 0 1 1 2 o", "C 2 0 1 10 20 o", "R 0 1 30 40 2:1").isEmpty)
        #expect(check("W 1 0 1 1 2 o", "C 2 0 0 10 20 m", "R 0 1 30 40 1:1").isEmpty)
        #expect(!check("W 1 0 1 1 2 o", "C 2 0 0 10 20 o", "R 0 1 30 40 2:1").isEmpty, "zeros were gone by then")
        #expect(!check("C 2 0 0 10 20 m", "R 0 1 30 40 2:1").isEmpty, "a miscompare writes nothing")
    }

    @Test func numbersMustBeUnique() {
        #expect(!check("W 1 0 1 1 2 o", "W 1 0 1 3 4 o").isEmpty)
    }

    @Test func findingsAreBounded_I10() {
        let lines = (0..<200).map { "R \($0) 1 1 2 7:1" }
        var history = History()
        history.add(client: 1, text: (lines + ["E 9"]).joined(separator: "\n"))
        #expect(HistoryChecker.check(history).count == HistoryChecker.findingsMaximum)
    }
}

/// Histories that a client did not write whole are damage, never a clean run.
@Suite struct HistoryTests {
    @Test(arguments: [
        "W 1 0 1 10 20", "W 1 0 1 20 10 o", "W x 0 1 10 20 o", "C 1 0 1 10 20 oo", "R 0 2 1 2 1:1", "R 0 2 1 2 1:9",
        "W 1 0 1 10 20 d", "W 1 0 1 10 20 o 3", "C 1 0 1 10 20 d x", "M 0 8 1 2", "M 0 8 2 1 0", "T 5 1 2", "T x 1 2 0",
        "R 0 1 1 2 1:0 1:1", "X 0 1 1 2 begins-with-number-1-of-lba-9", "S 1 2", "what",
    ])
    func aLineThatIsNoneIsDamage(line: String) {
        var history = History()
        history.add(client: 3, text: line + "\nE 1\n")
        #expect(history.damages == [History.Damage(client: 3, line: line)])
    }

    @Test func anEndThatIsMissingIsDamage() {
        var history = History()
        history.add(client: 1, text: "W 1 0 1 10 20 o\n")
        #expect(history.damages.count == 1)
    }

    @Test func countsAddUp() {
        var history = History()
        history.add(client: 1, text: "L 0 1\nB 0 2\nL 1 3\nS 11 0000 4\nE 5\n")
        history.add(client: 2, text: "S 11 0000 3\nE 5\n")
        #expect(history.counts.logins == 2 && history.counts.breaks == 1)
        #expect(history.counts.senses == ["11/0000": 7])
    }
}
