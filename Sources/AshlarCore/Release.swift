/// The release of all roles; the schema's ledger compares with it.
public let ashlarRelease = "0.1.0"
