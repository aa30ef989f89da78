#!/bin/bash
# Builds the model and runs every variant against what is expected of it.
#
#   docs/model/check.sh [DIRECTORY]     traces go to DIRECTORY/NAME.txt (default: a new temporary one)
set -euo pipefail
cd "$(dirname "$0")"
out=${1:-$(mktemp -d)}
mkdir -p "$out"
g++ -O2 -std=c++17 -o "$out/moves" moves.cpp
g++ -O2 -std=c++17 -Wno-misleading-indentation -o "$out/ghost" ghost.cpp
bad=0
program=moves
check() {
    local expected=$1 name=$2 got
    shift 2
    "$out/$program" "$name" sec=240 "$@" >"$out/$name.txt" || true
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
program=ghost
G="CR=0 EMAX=1 LG=0 RS=0 reads=0"
T="CR=0 EMAX=2 LG=0 RS=0 reads=0"
check "$V" lease-by-the-life-of-the-target stamp=0 initLive=1 TP=2 $G
check "$V" resend-across-epochs $T conc=1 K=1 RS=1 noResend=0
check "$H" right-leases-crash $T CR=1
check "$H" right-leases-login $G LG=1 RS=1
check "$H" right-leases-takeover $T RS=1 revive=1
# Sent again behind a takeover (R9): against a second initiator's write in between, then against its CLEAR TASK SET.
W="$T K=1 PB=0 RE=1 conc=1 RS=1"
A="$T K=1 PB=0 RE=1 CTS=1 RS=1"
check "$V" sent-again-without-looking-what-is-durable $W reDone=0
check "$V" aborts-are-not-durable $A reAbort=0
check "$V" what-never-left-is-not-looked-at $A reEvery=0
check "$H" right-sent-again $W EMAX=3
check "$H" right-sent-again-crash $W CR=1
check "$H" right-sent-again-aborts $A EMAX=3 CR=1
check "$H" right-sent-again-two-paths $T RE=1 RS=1 revive=1
check "$H" right-sent-again-two-paths-crash $T RE=1 CR=1
check "$H" right-sent-again-login $T RE=1 EMAX=3 LG=1
check "$H" right-hand-over $W EMAX=3 HO=2
check "$H" right-hand-over-aborts $A EMAX=3 HO=1
check "$H" right-hand-over-two-paths $T RE=1 HO=1
echo "$bad not as expected"
exit $((bad > 0))
