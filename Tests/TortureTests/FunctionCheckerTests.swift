import Testing

@testable import ashlar_torture

/// What functions have aborted does not come later (R6).
@Suite struct FunctionCheckerTests {
    @Test func whatAFunctionOfItsOwnAbortedTakesEffectBeforeItsAnswerOrNever_R6() {
        let lines = ["W 1 0 1 10 30 a", "T 2 20 30 0"]
        #expect(check(lines[0], lines[1], "R 0 1 40 50 0:1").isEmpty)
        #expect(check(lines[0], lines[1], "R 0 1 40 50 1:1").isEmpty)
        #expect(!check(lines[0], lines[1], "R 0 1 40 50 0:1", "R 0 1 60 70 1:1").isEmpty, "it came after the answer")
    }

    @Test(arguments: [4, 5]) func whatAnotherOnesFunctionAbortedTakesEffectBeforeItsAnswerOrNever_R6(code: Int) {
        // The answer to the command itself came long after that to the function.
        let lines = ["W 1 0 1 10 90 t", "T \(code) 20 30 0"]
        #expect(check(lines[0], lines[1], "R 0 1 92 95 1:1").isEmpty)
        #expect(!check(lines[0], lines[1], "R 0 1 40 50 0:1", "R 0 1 60 70 1:1").isEmpty)
        let late = "T \(code) 55 65 0"
        #expect(check(lines[0], lines[1], late, "R 0 1 40 50 0:1", "R 0 1 60 70 1:1").isEmpty, "it was the second one")
        let lost = "T \(code) 35 0 255"
        #expect(
            check(lines[0], lines[1], lost, "R 0 1 40 50 0:1", "R 0 1 60 70 1:1").isEmpty,
            "or one without an answer"
        )
    }

    @Test func whatIsAbortedBeforeItHasBegunIsNeverDone_R6() {
        // It carried a proof from before the function.
        #expect(check("T 5 2 8 0", "W 1 0 1 10 20 t", "R 0 1 30 40 0:1").isEmpty)
        #expect(!check("T 5 2 8 0", "W 1 0 1 10 20 t", "R 0 1 30 40 1:1").isEmpty)
    }

    @Test func aFunctionThatEndsEverythingEndsWhatIsLostOnItsWay_R6_D1() {
        let lost = "W 1 0 1 10 90 l"
        let reads = ["R 0 1 40 50 0:1", "R 0 1 60 70 1:1"]
        #expect(check(lost, reads[0], reads[1]).isEmpty)
        #expect(!check(lost, "T 5 20 30 0", reads[0], reads[1]).isEmpty)
        #expect(check(lost, "T 2 20 30 0", reads[0], reads[1]).isEmpty, "ABORT TASK SET is for one session")
        #expect(check(lost, "T 5 20 30 255", reads[0], reads[1]).isEmpty, "refused")
        #expect(check(lost, "T 5 5 30 0", reads[0], reads[1]).isEmpty, "it began after the function")
    }

    @Test func nothingIsAbortedWithoutAFunction() {
        #expect(!check("W 1 0 1 10 20 t").isEmpty)
        #expect(!check("W 1 0 1 10 20 t", "T 2 5 15 0").isEmpty, "ABORT TASK SET is for one session")
    }
}

/// MEDIUM ERROR is only where something was damaged (I11).
@Suite struct DamageCheckerTests {
    private func check(_ damaged: DamagedBlocks, _ lines: String...) -> [HistoryChecker.Finding] {
        var history = History()
        history.add(client: 1, text: (lines + ["E 1000"]).joined(separator: "\n"))
        #expect(history.damages.isEmpty, "\(history.damages)")
        return HistoryChecker.check(history, damaged: damaged)
    }

    private func damaged(_ blocks: Range<UInt64>, from time: UInt64) -> DamagedBlocks {
        var result = DamagedBlocks()
        result.add([blocks], from: time)
        return result
    }

    @Test func mediumErrorsAreForDamagedBlocks_I11() {
        let blocks = damaged(2..<4, from: 100)
        #expect(check(blocks, "M 0 64 120 130 16").isEmpty)
        #expect(check(blocks, "M 17 1 120 130 16").isEmpty, "the block's first sector is named")
        #expect(!check(blocks, "M 0 64 120 130 32").isEmpty, "a block that was not damaged")
        #expect(!check(blocks, "M 0 64 80 90 16").isEmpty, "before it was")
        #expect(!check(blocks, "M 0 8 120 130 16").isEmpty, "not asked for")
        #expect(!check(DamagedBlocks(), "M 0 8 120 130 0").isEmpty)
    }

    @Test func aCommandWithMediumErrorHasWrittenNothing_I11() {
        let blocks = damaged(0..<1, from: 0)
        #expect(check(blocks, "W 1 1 1 10 20 d 0", "C 2 1 0 10 20 d 0", "R 1 1 30 40 0:1").isEmpty)
        #expect(!check(blocks, "W 1 1 1 10 20 d 0", "R 1 1 30 40 1:1").isEmpty)
        #expect(!check(blocks, "C 1 1 0 10 20 d 0", "R 1 1 30 40 1:1").isEmpty)
    }

    @Test func anOldVersionInADamagedBlockIsFound_I11() {
        let blocks = damaged(0..<1, from: 0)
        let lines = ["W 1 0 8 10 20 o", "W 2 0 8 30 40 o"]
        #expect(check(blocks, lines[0], lines[1], "M 0 8 50 60 0").isEmpty)
        #expect(!check(blocks, lines[0], lines[1], "R 0 8 50 60 1:8").isEmpty)
    }

    @Test func aRewriteHeals_I11() {
        let blocks = damaged(0..<1, from: 0)
        #expect(check(blocks, "M 0 8 50 60 0", "W 1 0 8 70 80 o", "R 0 8 90 95 1:8").isEmpty)
    }

    @Test func theScrubHasToFindWhatCannotBeRead() {
        let blocks = damaged(2..<4, from: 100)
        #expect(blocks.disagreements(unreadable: [2], found: [2, 3]).isEmpty)
        #expect(blocks.disagreements(unreadable: [2], found: [3]).map(\.lba) == [16])
        #expect(blocks.disagreements(unreadable: [], found: [3, 5]).map(\.lba) == [40], "it has spread")
    }
}
