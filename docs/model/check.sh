#!/bin/bash
# Builds the model and runs every variant against what is expected of it.
#
#   docs/model/check.sh [DIRECTORY]     traces go to DIRECTORY/NAME.txt (default: a new temporary one)
set -euo pipefail
cd "$(dirname "$0")"
out=${1:-$(mktemp -d)}
mkdir -p "$out"
g++ -O2 -std=c++17 -o "$out/moves" moves.cpp
bad=0
check() {
    local expected=$1 name=$2 got
    shift 2
    "$out/moves" "$name" sec=240 "$@" >"$out/$name.txt" || true
    got=$(head -1 "$out/$name.txt")
    if [[ $got == *": $expected"* ]]; then
        echo "ok   $got"
    else
        echo "FAIL $got (expected $expected)"
        bad=$((bad + 1))
    fi
}
V=VIOLATION
H='HOLDS (exhausted)'
check "$V" move-ignores-version moveVer=0
check "$V" map-unconditional-direct extVer=0 UM=0
check "$V" map-unconditional-unmap extVer=0 DW=0
check "$V" evict-on-old-decision evictVer=0
check "$V" sweep-without-intent sweepIntent=0
check "$V" map-of-dead-object mapState=0
check "$V" compact-unconditional cmpExt=0
check "$V" versions-restart verMono=0 DW=0 CP=0
check "$V" id-handed-out-twice idOnce=0 MV=2 DW=0 CP=0
check "$V" answer-before-sync syncFirst=0
check "$V" late-put-leaks scan=0
check "$V" reread-only-what-is-missing rereadAll=0 V=4 CP=0 MV=0 DW=2 UM=0
check "$V" reader-does-not-retry retry=0
check "$V" direct-write-keeps-items dwCover=0
check "$V" put-before-intent intentFirst=0
check "$V" direct-write-half-by-version dwVer=1
check "$V" dead-without-looking gcCheck=0
check "$V" copy-keeps-items cyDel=0
check "$V" copy-of-an-extent-under-an-unmoved-item cyItem=0
check "$V" copy-of-an-old-map cySrc=0
check "$V" copy-is-not-counted cyCount=0
check "$V" compaction-compares-the-object-alone cmpSlot=0 FULL=1
check "$H" right
check "$H" right-without-copies CY=0
check "$H" right-direct-refused dwVer=2 CP=0
check "$H" right-two-copies CY=2 DW=0 RDR=0 OC=0
check "$H" right-full-objects-compacted FULL=1 RDR=0 UM=0
check "$H" right-two-agents MV=2 DW=0 CP=0 RDR=0
echo "$bad not as expected"
exit $((bad > 0))
