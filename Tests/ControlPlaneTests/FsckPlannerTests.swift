import AshlarCore
import Testing

@testable import ControlPlane

@Suite struct FsckPlannerTests {
    private static let block: [UInt8] = (0..<512).map { UInt8(truncatingIfNeeded: $0) }
    private static let checksum = Int64(block.withUnsafeBytes { Checksum(of: $0) }.rawValue)

    /// A planner that knows volume 1 of 100 blocks of 512 bytes, and object 7 of 10 slots, all live.
    private func planner(liveSlots: Int64 = 10, state: String = "live", volume: Int64 = 1) -> FsckPlanner {
        var planner = FsckPlanner()
        planner.add(FsckPlanner.Volume(id: 1, sizeBytes: 51_200, blockSizeBytes: 512))
        planner.add(
            FsckPlanner.Object(
                id: 7,
                volume: volume,
                server: 1,
                slots: 10,
                liveSlots: liveSlots,
                state: state,
                ageSeconds: 0
            )
        )
        return planner
    }

    private func extent(_ first: Int64, _ count: Int64, slot: Int64 = 0, object: Int64 = 7, volume: Int64 = 1)
        -> FsckPlanner.Extent
    {
        FsckPlanner.Extent(volume: volume, firstBlock: first, blockCount: count, object: object, firstSlot: slot)
    }

    private func item(
        _ block: Int64 = 0,
        volume: Int64 = 1,
        version: Int64? = 1,
        length: Int64? = 512,
        checksum: Int64? = checksum,
        isMoved: Bool = false,
        isMapped: Bool = false,
        bytes: [UInt8] = block
    ) -> FsckPlanner.Item {
        FsckPlanner.Item(
            volume: volume,
            block: block,
            version: version,
            length: length,
            checksum: checksum,
            isMoved: isMoved,
            isMapped: isMapped,
            bytes: bytes
        )
    }

    private func kinds(_ planner: FsckPlanner) -> [FsckReport.Kind] { planner.report.findings.map(\.kind) }

    @Test func whatAgreesIsClean() {
        var planner = planner()
        planner.add(extent(0, 4))
        planner.add(extent(4, 6, slot: 4))
        planner.extentsEnded()
        planner.add(item())
        planner.add(item(1, isMoved: true, isMapped: true))
        #expect(planner.report.isClean)
        #expect(planner.repairs.isEmpty)
        #expect(planner.report.extents == 2 && planner.report.items == 2 && planner.report.objects == 1)
    }

    @Test func extentsOfAVolumeNeverOverlap() {
        var planner = planner()
        planner.add(extent(0, 5))
        planner.add(extent(4, 5, slot: 5))
        planner.extentsEnded()
        #expect(kinds(planner) == [.extentsOverlap])
        #expect(planner.report.hasDamage)
    }

    @Test(
        arguments: [
            ("dead", 1, FsckReport.Kind.extentOfDeadObject), ("intended", 1, .extentOfDeadObject),
            ("live", 2, .extentOfForeignObject),
        ] as [(String, Int64, FsckReport.Kind)]
    )
    func extentOfAnObjectThatIsNotItsOwn_I8(state: String, volume: Int64, kind: FsckReport.Kind) {
        var planner = planner(state: state, volume: volume)
        planner.add(extent(0, 10))
        planner.extentsEnded()
        #expect(kinds(planner) == [kind])
    }

    @Test func extentsThatLeadNowhere() {
        var planner = planner()
        planner.add(extent(0, 10))
        planner.add(extent(10, 1, object: 8))
        planner.add(extent(99, 2, slot: 9))
        planner.add(extent(0, 1, volume: 3))
        planner.extentsEnded()
        #expect(
            kinds(planner) == [
                .extentWithoutObject, .extentOutsideVolume, .extentOutsideObject, .extentWithoutVolume,
                .extentOfForeignObject, .liveSlotsWrong,
            ]
        )
    }

    @Test func liveSlotsAreCountedAgain() {
        var planner = planner(liveSlots: 9)
        planner.add(extent(0, 4))
        planner.extentsEnded()
        #expect(kinds(planner) == [.liveSlotsWrong])
        #expect(planner.repairs == [.recountLiveSlots(object: 7, volume: 1)])
        #expect(!planner.report.hasDamage)
    }

    @Test func oldIntentsAreGivenUpAndYoungOnesLeft_I6() {
        var planner = planner()
        planner.add(extent(0, 10))
        for (id, age) in [(8, ControlLimits.orphanIntentSeconds), (9, ControlLimits.orphanIntentSeconds - 1)]
            as [(Int64, Int64)]
        {
            planner.add(
                FsckPlanner.Object(
                    id: id,
                    volume: 1,
                    server: nil,
                    slots: 0,
                    liveSlots: 0,
                    state: "intended",
                    ageSeconds: age
                )
            )
        }
        planner.extentsEnded()
        #expect(planner.repairs == [.giveUpIntent(object: 8)])
    }

    @Test func itemsAreCheckedAgainstTheirAttributes_I11() {
        var planner = planner()
        planner.add(extent(0, 10))
        planner.extentsEnded()
        var torn = Self.block
        torn[511] ^= 1
        planner.add(item(bytes: torn))
        planner.add(item(bytes: Array(Self.block.dropLast())))
        planner.add(item(length: 511))
        planner.add(item(checksum: nil))
        planner.add(item(100))
        planner.add(item(volume: 5))
        planner.add(item(isMoved: true))
        #expect(
            kinds(planner) == [
                .itemChecksumWrong, .itemLengthWrong, .itemLengthWrong, .itemMalformed, .itemOutsideVolume,
                .itemWithoutVolume, .movedItemUnmapped,
            ]
        )
    }

    @Test func findingsAreBoundedButCounted_I10() {
        var planner = planner()
        for block in 0..<Int64(ControlLimits.findingsMaximum + 5) { planner.add(item(block % 100, checksum: 0)) }
        #expect(planner.report.findings.count == ControlLimits.findingsMaximum)
        #expect(planner.report.counts["item-checksum-wrong"] == UInt64(ControlLimits.findingsMaximum + 5))
    }

    @Test func hexadecimalBytes() throws {
        #expect(try PostgresFsckStore.bytes(hexadecimal: "00ff7f") == [0, 255, 127])
        #expect(throws: ControlError.self) { try PostgresFsckStore.bytes(hexadecimal: "0g") }
    }
}
