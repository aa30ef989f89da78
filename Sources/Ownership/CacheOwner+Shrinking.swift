import AshlarCore

// What a volume that shrank has left behind its end: items and extents that nobody can reach any more, and that must be gone before
// the volume grows over them again.
//
// The database remembers the smallest size that a volume had since it was last rid of what lies behind (`zeroFromBytes`), and ends the
// owner's epoch with the shrink: no command of before it is committed behind it. Whoever takes the volume over then serves it up to
// there and no further, whatever its size is by now; looks step by step for what lies behind; and makes that zeros. The last step
// forgets the mark. If the volume has grown meanwhile, it is taken over once more, at its full size.
//
// What is behind the end is in no region of the image (``CacheOwner/regionLoaded(_:_:now:)`` leaves it out) and in no work for agents, so
// that a step meets no other command and needs no place in the order.
extension CacheOwner {
    /// Goes on with the removal of what lies behind the ends of volumes: one step of each volume at a time.
    mutating func continueShrinking(now: MonotonicTime) {
        guard !shrinking.isEmpty, now >= noCommitBefore, !isLogFull else { return }
        for id in shrinking.sorted() {
            guard let volume = owned(id), !volume.isLost else {
                shrinking.remove(id)
                continue
            }
            guard !volume.isRefusing else { continue }
            guard let remains = volume.remains else {
                shrinking.remove(id)
                if volume.isCutShort { lose(volume, retake: true, now: now) }
                continue
            }
            guard !volume.isLookingForRemains, now >= volume.nextRemainsLook else { continue }
            volume.isLookingForRemains = true
            let operation = operation(.remains(volume, remains))
            actions.append(.surveyMap(operation, id, remains, runsMaximum: OwnerLimits.remainsRunsMaximum))
        }
    }

    /// The store looked at what lies behind the end of a volume.
    mutating func remainsSurveyed(
        _ remains: BlockRange,
        _ result: Result<MapSurvey, StoreFailure>,
        of volume: VolumeOwner,
        now: MonotonicTime
    ) {
        guard !volume.isLost, !volume.isRefusing else { return }
        guard case .success(let survey) = result else { return endRemainsStep(of: volume, now: now) }
        var end = survey.blocks.end
        var mapped: UInt64 = 0
        for run in survey.mapped {
            let room = OwnerLimits.remainsStepBlocksMaximum - mapped
            if run.count >= room {
                end = run.first + room
                break
            }
            mapped += run.count
        }
        let command = Command(
            kind: .forget(BlockRange(from: remains.first, to: end), rest: BlockRange(from: end, to: remains.end)),
            ticket: nil,
            ranges: [],
            isExclusive: true,
            deadline: MonotonicTime(.max)
        )
        command.zeros = [BlockRange(from: remains.first, to: end)]
        makeReady(command, of: volume)
    }

    /// A step could not be made, and is made again in a while.
    mutating func endRemainsStep(of volume: VolumeOwner, now: MonotonicTime) {
        volume.isLookingForRemains = false
        volume.nextRemainsLook = now.advanced(byNanoseconds: OwnerLimits.storeRetry)
    }

    /// A step is durable.
    mutating func applyForgotten(rest: BlockRange, to volume: VolumeOwner) {
        volume.isLookingForRemains = false
        volume.remains = rest.isEmpty ? nil : rest
        if rest.isEmpty { volume.description.zeroFromBytes = nil }
    }

    /// What of a new description can be put in force while something lies behind the end; nil: the epoch is over.
    func admissible(_ description: VolumeDescription, for volume: VolumeOwner) -> VolumeDescription? {
        let size = volume.geometry.sizeBytes
        guard description.geometry.sizeBytes >= size else { return nil }
        guard volume.remains != nil || volume.isCutShort else {
            // It shrank and grew again unseen: this epoch was ended by that.
            return description.zeroFromBytes == nil ? description : nil
        }
        if let zeroFrom = description.zeroFromBytes, zeroFrom < size { return nil }
        var description = description
        if description.geometry.sizeBytes > size { volume.isCutShort = true }
        description.geometry = volume.geometry
        description.zeroFromBytes = volume.description.zeroFromBytes
        return description
    }
}

extension VolumeDescription {
    /// The volume as it may be served: up to where something may lie that has to become zeros first.
    var servable: VolumeDescription {
        guard let zeroFrom = zeroFromBytes, zeroFrom < geometry.sizeBytes else { return self }
        var description = self
        description.geometry = geometry.cut(toBytes: zeroFrom)
        return description
    }

    /// The blocks that may hold what has to become zeros.
    var remains: BlockRange? {
        guard let zeroFrom = zeroFromBytes else { return nil }
        let size = UInt64(geometry.blockSizeBytes)
        return BlockRange(
            from: BlockID(zeroFrom / size),
            to: BlockID(max(zeroFrom, Limits.volumeSizeMaximumBytes) / size)
        )
    }
}

extension MoveCandidates {
    /// Those inside of the volume.
    func inside(_ geometry: Geometry) -> MoveCandidates {
        guard items.contains(where: { $0.block.rawValue >= geometry.blockCount }) else { return self }
        let kept = items.indices.filter { items[$0].block.rawValue < geometry.blockCount }
        return MoveCandidates(items: kept.map { items[$0] }, agesMilliseconds: kept.map { agesMilliseconds[$0] })
    }
}
