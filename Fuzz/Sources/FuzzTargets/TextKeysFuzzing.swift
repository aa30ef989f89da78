import ISCSI
import NIOCore

// Input: one byte, the length of the portions in which the text comes in PDUs (0: one PDU), then the text.

/// Text of a login or text request: what is decoded is encoded to the same, and so are values.
func fuzzTextKeys(_ bytes: [UInt8]) throws(FuzzFailure) {
    var input = FuzzInput(bytes)
    let portion = Int(input.byte())
    let text = ByteBuffer(bytes: input.rest())
    if let gathered = try gather(text, portion: portion) {
        try require(gathered == text, "gathered text is not what was sent")
    }
    let keys: [TextKey]
    do throws(TextFailure) {
        keys = try TextKeys.decode(text)
    } catch {
        return
    }
    try require(keys.count <= ISCSILimits.keysMaximum, "more keys than allowed")
    guard let again = try? TextKeys.decode(TextKeys.encode(keys)) else {
        throw FuzzFailure("encoded keys are not decoded")
    }
    try require(again == keys, "keys are others after encoding")
    for key in keys { try checkValue(key.value) }
}

private func gather(_ text: ByteBuffer, portion: Int) throws(FuzzFailure) -> ByteBuffer? {
    var gatherer = TextGatherer()
    let parts = text.portions(portion)
    for (index, part) in parts.enumerated() {
        do throws(TextFailure) {
            let whole = try gatherer.add(part, continues: index + 1 < parts.count)
            if let whole { return whole }
        } catch {
            let isTooLong = text.readableBytes > ISCSILimits.textMaximumBytes
            try require(isTooLong, "text that is not too long is refused")
            return nil
        }
    }
    return nil
}

private func checkValue(_ value: String) throws(FuzzFailure) {
    _ = TextValue.boolean(value)
    try require(TextValue.list(value).joined(separator: ",") == value, "a list is another after joining")
    if let number = TextValue.number(value) {
        try require(TextValue.number(String(number)) == number, "a number is another after encoding")
    }
    let maximum = ISCSILimits.chapBinaryMaximumBytes
    if let binary = TextValue.binary(value, maximumBytes: maximum) {
        try require(!binary.isEmpty && binary.count <= maximum, "a binary value of a length that is not allowed")
        let encoded = TextValue.hexadecimal(encoding: binary)
        let decoded = TextValue.binary(encoded, maximumBytes: maximum)
        try require(decoded == binary, "a binary value is another after encoding")
    }
}
